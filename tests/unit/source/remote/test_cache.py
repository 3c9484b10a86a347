"""What was read a little ago, in bounded memory."""

from vhdx2raw.source.remote.cache import CACHE_SIZE, Cache


def test_piece_is_found_from_any_of_its_bytes_on() -> None:
    cache = Cache()
    cache.put(1, 100, memoryview(b"abc"))
    assert [bytes(cache.find(1, place) or b"none") for place in (99, 100, 102, 103)] == [
        b"none",
        b"abc",
        b"c",
        b"none",
    ]
    assert cache.find(2, 100) is None


def test_least_recently_used_piece_goes() -> None:
    cache, quarter = Cache(), memoryview(bytes(CACHE_SIZE // 4))
    for start in range(4):
        cache.put(0, start * CACHE_SIZE, quarter)
    assert cache.find(0, 0) is not None
    cache.put(0, 9 * CACHE_SIZE, quarter)
    there = [cache.find(0, start * CACHE_SIZE) is not None for start in (0, 1, 2, 3, 9)]
    assert there == [True, False, True, True, True]


def test_piece_that_is_put_again_counts_once() -> None:
    cache, half = Cache(), memoryview(bytes(CACHE_SIZE // 2))
    for _ in range(3):
        cache.put(0, 0, half)
    cache.put(0, CACHE_SIZE, half)
    assert cache.find(0, 0) is not None


def test_a_file_is_forgotten_alone() -> None:
    cache = Cache()
    cache.put(1, 0, memoryview(b"one"))
    cache.put(2, 0, memoryview(b"two"))
    cache.forget(1)
    assert cache.find(1, 0) is None
    assert bytes(cache.find(2, 0) or b"") == b"two"
