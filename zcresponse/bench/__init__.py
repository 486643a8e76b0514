"""Measuring how files are sent, side by side: rounds in turn, processor time, context switches, system calls.

Peers are processes of their own on 127.0.0.1; all that is asked of one is its number, its port and its log, so that
whoever measures may start them in another way. A measurement is a handful of named figures, and an outcome holds those
of every round. No command line here, and no printing.
"""
