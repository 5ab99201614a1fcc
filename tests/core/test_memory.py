import pytest

from priorloom.errors import InputError
from priorloom.memory import available_memory, memory_budget, readable_bytes, require_memory


def test_available_memory_is_within_what_the_machine_has() -> None:
    with open("/proc/meminfo", encoding="ascii") as file:
        total = int(file.readline().split()[1]) * 1024
    assert 2**20 < available_memory() <= total


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
