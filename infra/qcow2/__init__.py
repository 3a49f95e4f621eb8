"""The qcow2 format, read and written without qemu: headers, tables, dirty bitmaps, new images.

What is where in an image stands in docs/interop/qcow2.txt of qemu. Images here stand still: no program writes to them.
"""
