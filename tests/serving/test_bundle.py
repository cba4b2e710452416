import gzip
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from foreign_models import save_v2
from tiny_models import tiny_data, tiny_records, write_shard

from yt8m_tf import models
from yt8m_tf.errors import InputError
from yt8m_tf.export.precision import parse_precision
from yt8m_tf.export.saved_model import export_saved_model
from yt8m_tf.serving import inference
from yt8m_tf.serving.bundle import MEMBER_LIMIT, check_target, unpacked, write_bundle
from yt8m_tf.serving.inference import infer
from yt8m_tf.serving.parts import Parts
from yt8m_tf.serving.scorer import load_scorer

ROOT = Path(__file__).resolve().parents[2]
# A loop, whose functions TensorFlow numbers in additional places; and clustered weights.
MODELS = {"rnn": {"hidden_sizes": [8], "input_projection": True}, "resnet_like": {"inner_size": 64}}


def export(name, seed, directory, precision="float16"):
    """Exports a registered model with weights from a seed."""
    data = tiny_data("frame" if name == "rnn" else "video")
    keras.utils.set_random_seed(seed)
    model = models.build_model({"name": name} | MODELS[name], data.spec)
    export_saved_model(model, data, directory, precision=parse_precision(precision))


def files(directory):
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in Path(directory).rglob("*") if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet_like", pytest.param("rnn", marks=pytest.mark.slow)])
def test_the_same_export_twice_is_the_same_bundle(name, rng, tmp_path):
    seed = int(rng.integers(2**31))
    precision = "rnn*:float16,cluster"
    for number in (1, 2):  # an export's measurements, such as timings, may differ: they are not bundled
        export(name, seed, tmp_path / str(number), precision)
        (tmp_path / str(number) / "assets.extra").mkdir()
        (tmp_path / str(number) / "assets.extra" / "export_report.json").write_text(f"{rng.random()}")
        write_bundle(tmp_path / str(number), tmp_path / f"{number}.tgz", progress=False)
    assert (tmp_path / "1.tgz").read_bytes() == (tmp_path / "2.tgz").read_bytes()
    export(name, seed + 1, tmp_path / "3", precision)
    write_bundle(tmp_path / "3", tmp_path / "3.tgz", progress=False)
    assert (tmp_path / "1.tgz").read_bytes() != (tmp_path / "3.tgz").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_two_processes_write_the_same_bundle(name, tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_bundle; from pathlib import Path;"
        " test_bundle.export(sys.argv[2], 7, Path('m'));"
        " test_bundle.write_bundle('m', 'm.tgz', progress=False)"
    )
    for number, before in enumerate(("1", "2")):  # with different string hashes, in different directories
        (tmp_path / before).mkdir()
        environment = os.environ | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'helpers'}",
            "PYTHONHASHSEED": str(number + 1),
        }
        command = [sys.executable, "-c", code, str(ROOT / "tests" / "serving"), name]
        subprocess.run(command, cwd=tmp_path / before, env=environment, check=True, capture_output=True)
    assert (tmp_path / "1" / "m.tgz").read_bytes() == (tmp_path / "2" / "m.tgz").read_bytes()


def test_members_are_plain_and_sorted_and_unpack_unchanged(tmp_path):
    export("resnet_like", 1, tmp_path / "m")
    size = write_bundle(tmp_path / "m", tmp_path / "m.tgz", progress=False)
    packed = (tmp_path / "m.tgz").read_bytes()
    assert len(packed) == size
    assert packed[:10] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"  # no name, no time, an unknown system
    with tarfile.open(tmp_path / "m.tgz") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == [
        "assets/metadata.json",
        "fingerprint.pb",
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    with unpacked(tmp_path / "m.tgz") as directory:
        found = files(directory)
    assert found == files(tmp_path / "m") and not directory.exists()


def test_a_message_names_the_bundle_and_not_its_temporary_folder(rng, tmp_path):
    save_v2(tmp_path / "m", rng.normal(size=(48, 30)))
    (tmp_path / "m" / "assets").mkdir(exist_ok=True)
    (tmp_path / "m" / "assets" / "metadata.json").write_text("{")
    write_bundle(tmp_path / "m", tmp_path / "m.tgz", progress=False)
    with (
        pytest.raises(InputError, match=rf"^{tmp_path}/m\.tgz/assets/metadata\.json: not JSON: "),
        unpacked(tmp_path / "m.tgz") as directory,
    ):
        load_scorer(str(directory))


def test_targets_are_checked(tmp_path):
    with pytest.raises(InputError, match=r"--bundle=.*m\.zip: is not the name of a bundle"):
        check_target(tmp_path / "m.zip", overwrite=False)
    with pytest.raises(InputError, match=r"--bundle=.*there is no directory .*nowhere"):
        check_target(tmp_path / "nowhere" / "m.tgz", overwrite=False)
    (tmp_path / "m.tar.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"--bundle=.*exists already.*--overwrite"):
        check_target(tmp_path / "m.tar.gz", overwrite=False)
    check_target(tmp_path / "m.tar.gz", overwrite=True)


def test_an_interrupted_inference_from_a_bundle_continues(rng, tmp_path, monkeypatch):
    weights = rng.normal(size=(48, 30))
    save_v2(tmp_path / "m", weights)
    write_bundle(tmp_path / "m", tmp_path / "m.tgz", progress=False)
    shards = [
        write_shard(tmp_path / f"{i}.tfrecord", tiny_records(tiny_data("video"), rng, 5, f"s{i}_")) for i in range(3)
    ]
    infer(str(tmp_path / "m"), shards, tmp_path / "expected.csv", progress=False)

    def run():  # each time in a new temporary folder
        with unpacked(tmp_path / "m.tgz") as directory:
            return infer(str(directory), shards, tmp_path / "out.csv", batch_size=4, progress=False)

    written, real = [], inference.Selection.rows

    def interrupted(selection, ids, *rows):
        written.append(len(ids))
        if len(written) > 3:
            raise KeyboardInterrupt
        return real(selection, ids, *rows)

    monkeypatch.setattr(inference.Selection, "rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run()
    monkeypatch.undo()
    assert list((tmp_path / "out.csv.parts").glob("*.csv"))
    assert run().num_scored < 15
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "expected.csv").read_bytes()

    monkeypatch.setattr(Parts, "assemble", lambda parts: None)
    run()
    write_bundle(save_v2(tmp_path / "other", -weights), tmp_path / "m.tgz", overwrite=True, progress=False)
    with pytest.raises(InputError, match="that differs in model"):
        run()


def member(name, content=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512)


END = b"\0" * 1024
GRAPH = member("saved_model.pb", b"graph")


def refusal(path, packed, **options):
    """Returns the error message for an archive; asserts that no file of it is left anywhere."""
    path.write_bytes(packed)
    before = sorted(path.parent.parent.rglob("*"))
    with pytest.raises(InputError) as error, unpacked(path, **options):
        pytest.fail("was unpacked")
    assert sorted(path.parent.parent.rglob("*")) == before
    message = str(error.value)
    assert message.startswith(f"--bundle={path}: ") and "\n" not in message and message.isprintable()
    return message.removeprefix(f"--bundle={path}: ")


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Makes archives outside the temporary folder, and returns the error messages for them."""
    (tmp_path / "given").mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def make(content, end=END, pack=gzip.compress, **options):
        return refusal(tmp_path / "given" / "hostile.tgz", pack(content + end), **options)

    return make


@pytest.mark.parametrize(
    "name",
    [
        "/etc/escaped",
        "/",
        "../escaped",
        "variables/../../escaped",
        "variables/..",
        "./../escaped",
        "a//b",
        "././b",
        "a/./b",
        "a\\..\\b",
        "C:escaped",
        "new\nline",
        "bell\a",
        "ümlaut",
        "~/..",
        "",
        ".",
    ],
)
def test_paths_that_are_not_plain_are_refused(name, hostile):
    header = bytearray(member("x", b"bad"))
    header[:512] = b"".join([name.encode().ljust(100, b"\0"), header[100:512]])  # tarfile itself would strip slashes
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * ord(" ") + sum(header[156:512]))
    assert "has no plain path" in hostile(GRAPH + bytes(header))


@pytest.mark.parametrize(
    ("kind", "link"),
    [
        (tarfile.SYMTYPE, "/etc/passwd"),
        (tarfile.SYMTYPE, "../../escaped"),
        (tarfile.SYMTYPE, "saved_model.pb"),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "saved_model.pb"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (tarfile.CONTTYPE, ""),
        (tarfile.GNUTYPE_SPARSE, ""),
        (tarfile.XHDTYPE, ""),
        (tarfile.XGLTYPE, ""),
        (tarfile.GNUTYPE_LONGNAME, ""),
    ],
)
def test_a_member_that_is_neither_file_nor_folder_is_refused(kind, link, hostile):
    assert "member 'assets' is neither file nor folder" in hostile(GRAPH + member("assets", b"", kind, link))


def test_a_file_behind_a_link_is_not_written(hostile, tmp_path):
    (tmp_path / "outside").mkdir()
    link = member("variables", b"", tarfile.SYMTYPE, str(tmp_path / "outside"))
    assert "neither file nor folder" in hostile(link + member("variables/escaped", b"bad"))
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (member("saved_model.pb", b"2"), b""),
        (member("SAVED_MODEL.PB", b"2"), b""),
        (member("./saved_model.pb", b"2"), b""),
        (member("saved_model.pb", kind=tarfile.DIRTYPE), b""),
        (member("saved_model.pb/inner", b"2"), b""),
        (member("a/b", b"1"), member("a", b"2")),
        (member("Assets", kind=tarfile.DIRTYPE), member("assets/b", b"2")),
    ],
)
def test_duplicate_names_are_refused(first, second, hostile):
    assert "occurs twice" in hostile(GRAPH + first + second)


def test_archives_that_expand_too_much_are_refused(hostile):
    zeros = member("assets/zeros", bytes(5_000_000))
    message = hostile(GRAPH + zeros, size_limit=5_000_000)
    assert "unpacks to 5,000,005 bytes or more, above --size_limit=5,000,000" in message
    lying = tarfile.TarInfo("assets/zeros")
    lying.size = 10**15  # declares more bytes than the archive contains or any disk can store
    assert "above --size_limit=1,000,000,000" in hostile(GRAPH + lying.tobuf(tarfile.GNU_FORMAT))
    lying.size = -512
    assert "negative size" in hostile(GRAPH + lying.tobuf(tarfile.GNU_FORMAT))
    lying.size = 512  # declares less: the rest is read as headers
    assert "damaged" in hostile(GRAPH + lying.tobuf(tarfile.GNU_FORMAT) + b"\1" * 5120)
    many = b"".join(member(f"assets/{number}") for number in range(MEMBER_LIMIT))
    assert f"more than {MEMBER_LIMIT} members" in hostile(GRAPH + many)
    assert "data after its end" in hostile(GRAPH, END + bytes(3_000_000))


def test_an_incomplete_archive_is_refused(hostile, rng):
    noise = rng.integers(0, 256, 20_000, np.uint8).tobytes()
    graph = member("saved_model.pb", noise)
    assert "not a gzipped file" in hostile(graph, pack=bytes).lower()
    assert "not a gzipped file" in hostile(b"", b"", pack=lambda _: noise).lower()
    assert "damaged" in hostile(b"", b"", pack=lambda _: b"")
    for cut in (5, 15, 8_000, -9, -3):
        assert "damaged" in hostile(graph, pack=lambda content, cut=cut: gzip.compress(content)[:cut])
    assert "damaged" in hostile(graph, b"")  # complete gzip, truncated tar
    assert "damaged" in hostile(graph[:-700], b"")
    assert "data after its end" in hostile(graph, END + noise)
    assert "damaged" in hostile(graph, pack=lambda content: gzip.compress(content) + noise)
    for position in (3_000, -6):  # in the data, and in the final checksum

        def flip(content, position=position):
            packed = bytearray(gzip.compress(content))
            packed[position] ^= 1
            return bytes(packed)

        assert "damaged" in hostile(graph, pack=flip)


def test_archives_without_a_saved_model_are_refused(hostile, tmp_path):
    assert "no saved_model.pb" in hostile(member("notes.txt", b"x"))
    assert "no saved_model.pb" in hostile(member("a/saved_model.pb", b"x") + member("b/notes.txt", b"x"))
    assert "no saved_model.pb" in hostile(member("a/b/saved_model.pb", b"x"))
    assert "no saved_model.pb" in hostile(member("saved_model.pb", kind=tarfile.DIRTYPE))
    assert "no saved_model.pb" in hostile(b"")
    with pytest.raises(InputError, match=r"nowhere\.tgz: no such file"):
        unpacked(tmp_path / "nowhere.tgz").__enter__()


@pytest.mark.parametrize("prefix", ["", "./", "model/", "./model/"])
def test_archives_of_other_tools_are_read(prefix, tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", format=tarfile.GNU_FORMAT) as archive:
        for folder in ("", "variables"):
            info = tarfile.TarInfo(prefix + folder)
            info.type, info.mtime = tarfile.DIRTYPE, 1_700_000_000
            if info.name:
                archive.addfile(info)
        for name in ("saved_model.pb", "variables/a b"):
            info = tarfile.TarInfo(prefix + name)
            info.size, info.mode = 1, 0o4777
            archive.addfile(info, io.BytesIO(b"x"))
    (tmp_path / "m.tar.gz").write_bytes(content.getvalue())
    with unpacked(tmp_path / "m.tar.gz") as directory:
        assert files(directory) == {"saved_model.pb": b"x", "variables/a b": b"x"}
        assert not any(path.stat().st_mode & 0o6111 for path in directory.rglob("*") if path.is_file())
