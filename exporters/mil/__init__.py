"""Core ML programs run op by op in PyTorch, on any system.

A saved package holds a program in Apple's model intermediate language (MIL). Here each of its operators is a function
of a table, and the evaluator walks the program with them; nothing of Core ML's runtime is needed.
"""
