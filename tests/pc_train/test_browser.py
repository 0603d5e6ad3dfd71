"""Reports in a real browser without network: what is drawn, and what hands and keys do to it."""

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pc_data.colors import class_colors
from pc_train.cli import main
from pc_train.reports.page import Report
from pc_train.reports.viewer import ClassColors, Cloud, PointColors, error_colors
from PIL import Image

_NAMES = ("car", "vegetation", "traffic_cone")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_HANDS = Path(__file__).with_name("hands.js")
_PATH = next(filter(None, map(shutil.which, _BROWSERS)), None)

pytestmark = [
    pytest.mark.skipif(_PATH is None, reason=f"needs a browser: one of {', '.join(_BROWSERS)}"),
    pytest.mark.timeout(600),
]

# Complaints of a browser without a graphics card, which draws by its processor.
_NO_CARD = re.compile(r"GL Driver Message|software WebGL")


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Opens a page; returns what the browser wrote, and what the page wrote to its console."""
    profile = tmp_path_factory.mktemp("profile")

    def browse(page, *words, fragment=""):
        words = [
            *(_PATH, "--headless=new", "--no-sandbox", "--disable-dev-shm-usage"),
            *("--enable-unsafe-swiftshader", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(
                f"--user-data-dir={profile}",
                "--virtual-time-budget=10000",
                "--enable-logging=stderr",
            ),
            *("--hide-scrollbars", "--force-device-scale-factor=1", "--window-size=1100,1000"),
            *(*words, f"file://{page}{fragment}"),
        ]
        done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, [line for line in said if not _NO_CARD.search(line)]

    return browse


@pytest.fixture(scope="module")
def shoot(browse, tmp_path_factory):
    """The picture of a page at a fragment, each taken once."""
    taken = {}
    folder = tmp_path_factory.mktemp("shots")

    def shoot(page, fragment=""):
        key = (page, fragment)
        if key not in taken:
            file = folder / f"{len(taken)}.png"
            _, said = browse(page, f"--screenshot={file}", fragment=fragment)
            assert said == []
            taken[key] = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))
        return taken[key].astype(int)

    return shoot


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report with a cloud: a floor of cars, a wall of vegetation, a block of traffic cones."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 2000)
    xyz = rng.uniform(-1, 1, size=(6000, 3)) * np.repeat([[3, 3, 0], [0, 3, 2], [1, 1, 1]], 2000, 0)
    xyz += np.repeat([[0, 0, 0], [-3, 0, 2], [1, -1, 1]], 2000, 0)
    predicted = np.where(xyz[:, 1] > 1, (labels + 1) % 3, labels)
    evil = "</script><script>document.title = 'owned'</script>"
    report = Report("A report", evil)
    report.cloud(
        Cloud(
            xyz=xyz.astype(np.float32),
            colorings={
                "ground truth": ClassColors(labels=labels, names=_NAMES),
                "prediction": ClassColors(labels=predicted, names=(*_NAMES[:2], evil)),
                "error": error_colors(labels, predicted),
                "features": PointColors(colors=(xyz - xyz.min(0)) / np.ptp(xyz, 0), note="a note"),
            },
        ),
        "A cloud.",
    )
    file = tmp_path_factory.mktemp("page") / "report.html"
    report.write(file)
    return file


def _share(picture, color):
    """Of the picture's pixels in this colour."""
    return (np.abs(picture - np.rint(255 * np.asarray(color))).max(axis=-1) <= 3).mean()


def test_every_colouring_is_drawn(page, shoot):
    truth, error, features = (shoot(page, f"#view={name}") for name in ("ground", "error", "feat"))
    for color in class_colors(_NAMES):
        assert _share(truth, color) > 0.002
        assert _share(error, color) < 1e-4
    stage = features[220:600, 100:1000].reshape(-1, 3)
    assert len(np.unique(stage, axis=0)) > 500
    assert (truth != error).any(axis=-1).mean() > 0.02
    np.testing.assert_array_equal(truth, shoot(page))  # the first is shown first


def test_without_webgl_the_same_is_drawn(page, shoot):
    card, plain = shoot(page, "#view=ground"), shoot(page, "#view=ground&renderer=2d")
    for color in class_colors(_NAMES):
        assert _share(plain, color) > 0.005
    ground = np.array([20, 23, 31])
    drawn = [np.abs(p - ground).max(axis=-1) > 20 for p in (card, plain)]
    assert (drawn[0] != drawn[1]).mean() < 0.03


def test_hands_and_keys(page, browse):
    text = re.sub(r"<meta http-equiv=.*?>", "", page.read_text())  # it would not let this in
    copy = page.with_name("hands.html")
    copy.write_text(text.replace("</body>", f"<script>{_HANDS.read_text()}</script></body>"))
    dom, console = browse(copy, "--dump-dom")
    assert console == []
    said = json.loads(re.search(r'data-said="(.*?)"', dom)[1].replace("&quot;", '"'))
    assert said.pop("point").startswith("ground truth: ")
    names = ("wheel", "ArrowLeft", "ArrowUp", "+", "-", "shift", "drag", "touch", "height", "dot")
    assert [said.pop(name) for name in names] == [True] * len(names)
    unmoved = ("wheel unasked", "ctrl", "hover")
    assert [said.pop(name) for name in unmoved] == [False] * len(unmoved)
    assert said == {
        "renderer": True,
        "home": True,
        "all": 6000,
        "hidden": 4000,
        "pressed": "false",
        "again": 6000,
        "only": 2000,
        "title": "features",
        "note": "a noteshow all",
        "hash": "prediction",
    }


def test_page_asks_for_nothing_and_no_name_becomes_code(page, browse):
    dom, console = browse(page, "--dump-dom")
    assert console == []
    assert "<title>A report</title>" in dom
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", dom)
    assert "http" not in dom.replace("http-equiv", "")
    assert dom.count("<canvas") == 1
    assert "aria-label" in re.search("<canvas.*?>", dom)[0]


def test_policy_shuts_out_what_does_not_belong(page, browse):
    copy = page.with_name("foreign.html")
    foreign = "<script>document.title = 'owned'</script><img src='http://127.0.0.1:9/a.png'>"
    copy.write_text(page.read_text().replace("</body>", f"{foreign}</body>"))
    dom, console = browse(copy, "--dump-dom")
    assert "<title>A report</title>" in dom
    assert sum("Content Security Policy" in line for line in console) == 2


@pytest.mark.slow
def test_report_of_a_run(probe_words, tmp_path, browse, shoot):
    out = tmp_path / "run"
    assert main(probe_words(out)) == 0
    page = out / "report.html"
    assert page.stat().st_size < 6e6
    truth, error = shoot(page, "#view=ground"), shoot(page, "#view=error")
    assert (truth != error).any(axis=-1).mean() > 0.005
    dom, _ = browse(page, "--dump-dom")
    options = re.findall(r"<option>(.*?)</option>", dom)
    assert options == ["ground truth", "prediction", "error", "features", "intensity", "height"]
