"""What `colddiff restore` says of all images together."""

from __future__ import annotations

from colddiff.restoration.scores import mean_lines, worse_line

BEFORE = {"input_psnr_db": 10.0, "input_ssim": None}


def test_images_that_were_made_worse_are_said_to_be() -> None:
    row = {"image": "a", "severity": 20, "psnr_db": 8.0, "ssim": None} | BEFORE
    rows = [row, row | {"psnr_db": 11.0}]
    assert worse_line(rows, degraded_here=False) == (
        "worse than what was given, by 0.50 dB of PSNR, from severity 20: they may be of a lower "
        "one, or degraded otherwise: --severity all shows each"
    )
    said = worse_line(rows, degraded_here=True)
    assert said is not None
    assert said.endswith("20: this checkpoint does not restore such images")
    assert worse_line([row | {"psnr_db": 10.0}], degraded_here=False) is None
    assert worse_line([row, row | {"severity": 1}], degraded_here=False) is None
    assert worse_line([row | {"psnr_db": None}], degraded_here=False) is None
    assert worse_line([], degraded_here=False) is None


def test_means_are_told_for_each_severity_and_without_what_is_equal() -> None:
    row = {"image": "a", "severity": 2, "psnr_db": 20.0, "ssim": None} | BEFORE
    rows = [row, row | {"psnr_db": 30.0}, row | {"severity": 4, "psnr_db": None}]
    # Mean squared errors of 0.01 and 0.001, or of 0.01 and 0.
    both = "(22.60 dB of the mean error, as evaluations count it; degraded 10.00)"
    assert mean_lines(rows[:2]) == [f"mean over 2: psnr 25.00 dB {both}"]
    assert mean_lines([rows[0], rows[2] | {"severity": 2}])[0].startswith(
        "mean over 2: psnr 20.00 dB over 1 (23.01 dB of the mean error, as evaluations count it; "
    )
    assert mean_lines([row])[0].startswith("mean over 1: psnr 20.00 dB (degraded 10.00)")
    assert mean_lines(rows) == [
        f"mean over 2 of severity 2: psnr 25.00 dB {both}",
        "mean over 1 of severity 4: equal",
    ]
