"""The page that every report is: what it may do, and what can be read back from it."""

import base64
import hashlib
import re

import numpy as np
from matplotlib.figure import Figure
from pc_train.reports.page import Report, read_pictures
from pc_train.reports.viewer import Cloud


def _figure(width=2):
    figure = Figure(figsize=(width, 1))
    figure.subplots().plot([0, 1])
    return figure


def _policy(page):
    return re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]


def test_page_may_fetch_nothing_and_run_only_the_viewer(tmp_path):
    report = Report("Title", "lead")
    report.write(tmp_path / "plain.html")
    plain = (tmp_path / "plain.html").read_text()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src "
    assert _policy(plain) == f"{policy}'none'"
    assert "<script" not in plain
    for _ in range(2):
        report.cloud(Cloud(xyz=np.eye(3), colorings={}), "A cloud.")
    report.write(tmp_path / "cloud.html")
    page = (tmp_path / "cloud.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert _policy(page) == f"{policy}'sha256-{digest}'"
    assert "http" not in page.replace("http-equiv", "")


def test_numbers_stand_at_the_right(tmp_path):
    report = Report("Title", "lead")
    report.table(["name", "value"], [["car", "1.5"], ["bus", "+2"], ["-", "-3.0"], ["a-b", "+"]])
    report.write(tmp_path / "report.html")
    numeric = re.findall(r'<td class="number">(.*?)</td>', (tmp_path / "report.html").read_text())
    assert numeric == ["1.5", "+2", "-", "-3.0"]


def test_first_picture_of_each_section_is_read_back(tmp_path):
    report = Report("Title", "lead")
    for width, heading in ((2, "Loss"), (3, "Truth & answers"), (4, None)):
        if heading:
            report.heading(heading)
        report.figure(_figure(width), 'A caption with > and ".')
    report.heading("Nothing to see")
    report.write(tmp_path / "report.html")
    pictures = read_pictures(tmp_path / "report.html")
    assert list(pictures) == ["Loss", "Truth & answers"]
    other = Report("Other", "lead")
    other.pictures(pictures)
    other.write(tmp_path / "other.html")
    page = (tmp_path / "other.html").read_text()
    assert [data in page for data in pictures.values()] == [True, True]
    assert read_pictures(tmp_path / "absent.html") == {}


def test_configuration_is_shown_where_there_is_one(tmp_path):
    report = Report("Title", "lead")
    report.configuration(tmp_path)
    report.write(tmp_path / "before.html")
    (tmp_path / "config.yaml").write_text("lr: 0.5 # <b>\n")
    report.configuration(tmp_path)
    with report.folded("More & more", unfold=True):
        report.paragraph("inside")
    report.write(tmp_path / "after.html")
    assert "Configuration" not in (tmp_path / "before.html").read_text()
    after = (tmp_path / "after.html").read_text()
    assert "<h2>Configuration</h2><pre>lr: 0.5 # &lt;b&gt;\n</pre>" in after
    assert "<details open><summary>More &amp; more</summary><p>inside</p></details>" in after
