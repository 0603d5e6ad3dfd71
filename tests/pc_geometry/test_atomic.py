import pytest
from pc_geometry.atomic import atomic_file, remove_unfinished


def test_a_file_is_whole_or_as_it_was(tmp_path):
    file = tmp_path / "new" / "file.txt"
    with atomic_file(file) as stream:
        stream.write(b"one")
        assert not file.exists()

    def interrupted():
        with atomic_file(file) as stream:
            stream.write(b"two")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_bytes() == b"one"
    assert list(file.parent.iterdir()) == [file]


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path):
    with atomic_file(tmp_path / "step-1.ckpt") as stream:
        stream.write(b"whole")
        (temporary,) = tmp_path.iterdir()
        left = temporary.read_bytes()
        name = temporary.name
    (tmp_path / name).write_bytes(left)
    for other in (".hidden", ".other.txt.abc", "step-2.ckpt"):
        (tmp_path / other).touch()
    (tmp_path / ".step-3.ckpt.folder").mkdir()
    remove_unfinished(tmp_path, "step-*.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {
        *("step-1.ckpt", "step-2.ckpt"),
        *(".hidden", ".other.txt.abc", ".step-3.ckpt.folder"),
    }
    remove_unfinished(tmp_path / "absent", "step-*.ckpt")
