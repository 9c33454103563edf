"""`empathy-kit doctor` on the cache: what lies there, and which part of it must be guarded."""

from __future__ import annotations

from pathlib import Path

from cli_reply import Reply


def test_doctor_sizes_the_cache_and_warns_of_what_holds_the_posts(kit: Reply, cache: Path) -> None:
    for name, size in (("states/a.npy", 3 * 2**20), ("states/b.npy", 2**19), ("encoders/mpnet/config.json", 2**18)):
        path = cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    code, out, _ = kit("doctor")
    assert code == 0
    states = cache / "states"
    assert [line for line in out.splitlines() if line.startswith("cache, ") and "kernels" not in line] == [
        "cache, encoders: 0.2 MiB",
        "cache, states: 3.5 MiB; as sensitive as the posts, which can be recovered from them: "
        f"guard {states} as you guard those, or delete it",
    ]
