"""Readers of files that anybody may have written or damaged.

What a file claims is compared with what it is before anything of the claimed size is allocated, nothing that may never
end (a pipe, a device) is opened, and every refusal is a UserError of one sentence that names the file and the fault.
"""
