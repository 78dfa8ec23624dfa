"""Methods that find directions of concepts: a module each, by the method's name, with its `METHOD`.

A new one is a file here and its test. The plan loads it to know what it reads, so a module's top
imports nothing heavy.
"""
