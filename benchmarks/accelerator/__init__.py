"""What is measured in the first minutes with an accelerator: `bash benchmarks/accelerator.sh [--smoke] [part ...]`.

Each part is a module with a function `measure`, and writes its JSON as it goes. docs/accelerator.md shows them.
"""
