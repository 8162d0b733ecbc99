"""Methods: one file each, none imports another; the maths they share is in `parts`.

`raycl.methods.method` is the contract, `raycl.methods.build` the way from a spec to one.
"""
