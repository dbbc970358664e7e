"""What a disk image is: its formats and dangers (pure), the tools that read it, the target it lands in.

No network and no pipeline in here. Every format parser is a pure generator over `reads.Reads`.
"""
