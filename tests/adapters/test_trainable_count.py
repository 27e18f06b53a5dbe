"""ftlib says how many parameters train, without being asked and without repeating itself."""

import logging

import torch

import ftlib as ft


def lines(capsys, monkeypatch, *calls):
    monkeypatch.setattr(
        logging.getLogger(), "handlers", []
    )  # as outside pytest, where nobody has set up logging
    next(h for h in logging.getLogger("ftlib").handlers if type(h).__name__ == "_Say").last = None
    for call in calls:
        call()
    return capsys.readouterr().out.splitlines()


def small(r):
    return ft.add_lora(
        torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False)), r=r, target_modules=("0",)
    )


def test_it_counts_what_trains(capsys, monkeypatch):
    """r·(in + out) = 2·(4 + 6) = 20 beside 24 frozen weights."""
    assert lines(capsys, monkeypatch, lambda: small(2)) == [
        "20 of 44 parameters train (45.45%), 1 layers adapted"
    ]


def test_a_line_twice_in_a_row_is_said_once(capsys, monkeypatch):
    assert (
        len(lines(capsys, monkeypatch, lambda: small(2), lambda: small(2), lambda: small(1))) == 2
    )


def test_it_can_be_silenced_and_goes_to_logging_where_that_is_set_up(capsys, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "ftlib"):
        small(2)
    assert "20 of 44 parameters train" in caplog.text and not capsys.readouterr().out
    logging.getLogger("ftlib").setLevel(logging.WARNING)
    try:
        assert not lines(capsys, monkeypatch, lambda: small(2))
    finally:
        logging.getLogger("ftlib").setLevel(logging.INFO)
