"""`python -m zcresponse`, the same as `zcresponse`."""

from zcresponse.cli import main

if __name__ == "__main__":
    main()
