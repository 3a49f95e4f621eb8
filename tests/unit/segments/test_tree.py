"""The tree that borg sees: every segment is found by its name, in the disk's order, and looks the same next time."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from infra.manifest import segment_name
from infra.segments.tree import ROOT, DiskTree, Tree

MIB = 1024**2
SIZES = st.lists(st.integers(1, 40 * MIB), min_size=1, max_size=3)


def tree_of(sizes: list[int]) -> Tree:
    """Disks vda, vdb, ... of these sizes."""
    disks = (
        DiskTree(f"vd{chr(97 + number)}", size, 4 * MIB, array("Q", range(1, -(-size // (4 * MIB)) + 1)))
        for number, size in enumerate(sizes)
    )
    return Tree(tuple(disks), when=5)


@given(SIZES, st.integers(0, 12))
def test_what_is_listed_is_found(sizes: list[int], start: int) -> None:
    """Names that a folder lists lead to the nodes and attributes that it lists, from any place on."""
    tree = tree_of(sizes)
    folders = list(tree.children(ROOT, 0))
    assert [name for name, _, _ in folders] == [disk.target.encode() for disk in tree.disks]
    for _, folder, _ in folders:
        every = list(tree.children(folder, 0))
        assert list(tree.children(folder, start)) == every[start:]
        for name, node, attributes in every:
            assert tree.lookup(folder, name) == node
            assert tree.attributes(node) == attributes


@given(SIZES)
def test_segments_make_up_the_disk(sizes: list[int]) -> None:
    """Segments in the order of their names and of their inodes are the disk, without gap or overlap."""
    for disk in tree_of(sizes).disks:
        every = [disk.attributes(number) for number in range(len(disk.generations))]
        assert sum(each.size for each in every) == disk.size
        assert [each.inode for each in every] == sorted({each.inode for each in every})
        names = [segment_name(number) for number in range(len(every))]
        assert names == sorted(names)


def test_inodes_do_not_depend_on_other_disks() -> None:
    """A disk that comes or goes does not change what borg remembers of the others."""
    alone = DiskTree("vdb", MIB, 4 * MIB, array("Q", [1]))
    beside = tree_of([MIB, MIB, MIB]).disks[1]
    assert alone.attributes(0).inode == beside.attributes(0).inode


def test_what_is_not_there_is_not_found() -> None:
    """Names that are none of a segment's, and nodes of no file, lead nowhere."""
    tree = tree_of([5 * MIB])
    folder = tree.lookup(ROOT, b"vda")
    assert folder is not None
    assert [tree.lookup(folder, name) for name in (b"2", b"00000002", b"x", b"0000000A", b"-0000001")] == [None] * 5
    assert tree.lookup(ROOT, b"vdb") is None
    assert [tree.attributes(node) for node in (0, 2, folder + 3, 99 << 40)] == [None] * 4
