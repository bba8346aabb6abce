import shards


def test_the_public_names_are_these() -> None:
    assert shards.__all__ == sorted(shards.__all__)
    assert set(shards.__all__) == {
        "Dataset", "Example", "Fault", "Loader", "Member", "Mixture", "Moments", "Order", "Receipt", "Record",
        "ShardError", "Shuffle", "Windows", "current", "faults", "finished", "history", "open",
        "read_receipt", "roll_back", "set_current", "shard_names", "shard_of", "verify", "write_index",
        "write_shard",
    }  # fmt: skip
    assert all(hasattr(shards, name) for name in shards.__all__)
