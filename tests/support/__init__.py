"""What end-to-end tests stand on: a table of cases, a strict client, real servers, a witness in the kernel.

Nothing here imports zcresponse, so that the machinery can be tried on any server and can never share its mistakes.
"""
