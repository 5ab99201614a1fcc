import pytest

from priorloom import memory
from priorloom.errors import InputError
from priorloom.memory import available_memory, memory_budget, readable_bytes, require_memory


def test_available_memory_is_within_what_the_machine_has() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 2**20 < available_memory() <= total


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_control_group_read_from_files_is_available(version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = "/sys/fs/cgroup/memory/" if version == 1 else "/sys/fs/cgroup/"
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    facts = "inactive_file 5\ntotal_inactive_file 700000\n" if version == 1 else "anon 9\ninactive_file 700000\n"
    files = {folder + names[0]: "1000000\n", folder + names[1]: "900000\n", folder + "memory.stat": facts}
    monkeypatch.setattr(memory, "_read", lambda path: files.get(path, ""))
    assert available_memory() == 800_000


def test_a_variable_sets_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", "0.5")
    assert memory_budget() == 2**29
    require_memory("the matrix", 2**29, "use fewer views")
    with pytest.raises(InputError) as caught:
        require_memory("the matrix", 3 * 2**30, "use fewer views")
    text = str(caught.value)
    assert "\n" not in text
    for part in ("memory of the matrix", "512 MiB", "3 GiB", "use fewer views", "PRIORLOOM_MEMORY_GIB"):
        assert part in text


@pytest.mark.parametrize("value", ["-1", "many", "nan", "0"])
def test_a_variable_without_meaning_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRIORLOOM_MEMORY_GIB", value)
    with pytest.raises(InputError, match="PRIORLOOM_MEMORY_GIB"):
        memory_budget()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (2048, "2 KiB"), (1.5 * 2**30, "1.5 GiB"), (2**50, "1.02e+03 TiB")]
)
def test_bytes_are_readable(count: float, text: str) -> None:
    assert readable_bytes(count) == text
