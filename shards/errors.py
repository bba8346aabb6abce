"""What goes wrong with a dataset on disk, told in one line: what, where and how to mend it."""


class ShardError(Exception):
    """A shard, a receipt, an index or a loader's setting that cannot be used as it is."""
