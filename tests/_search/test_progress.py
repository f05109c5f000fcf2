"""A search goes on without its progress bar if the bar can't be shown."""

import io
import sys

import pytest
from sklearn.datasets import load_iris

from sknas import NASClassifier
from sknas._history import History
from sknas._search.progress import Progress
from sknas._validation import warn_user
from sknas.exceptions import SearchWarning

X, Y = load_iris(return_X_y=True)


class Failing(io.StringIO):
    """A pipe whose reader ends after some writes."""

    def __init__(self, n_writes):
        super().__init__()
        self.n_writes = n_writes

    def write(self, text):
        self.n_writes -= 1
        if self.n_writes < 0:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


class WriteOnly:
    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS = {
    "none": lambda: None,
    "closed": closed,
    "no stream": object,
    "write only": WriteOnly,
    "ASCII": lambda: io.TextIOWrapper(io.BytesIO(), encoding="ascii"),
    **{f"broken after {n}": lambda n=n: Failing(n) for n in (0, 1, 2, 5)},
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_search_needs_no_stream_of_errors(monkeypatch, kind):
    monkeypatch.setattr(sys, "stderr", STREAMS[kind]())
    monkeypatch.setattr(sys, "stdout", STREAMS[kind]())
    model = NASClassifier(
        verbose=1, max_trials=2, max_epochs=2, cv=2, n_jobs=1, random_state=0
    )
    assert model.fit(X, Y).predict(X).shape == (150,)


@pytest.mark.process
def test_workers_need_no_stream_of_errors(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(sys, "stdout", None)
    model = NASClassifier(
        verbose=1, trainer="skorch", max_trials=2, max_epochs=2, cv=2, n_jobs=2
    )
    assert model.fit(X, Y).predict(X).shape == (150,)


def test_the_bar_is_shown_and_closed(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress(1, 3, None) as progress:
        progress.show(History())
        progress.note("refit")
    text = stream.getvalue()
    assert "search:   0%" in text and "0/3 trial" in text
    assert "refit:" in text and text.endswith("\n")
    with Progress(0, 3, None) as progress:
        progress.note("silence")
    assert stream.getvalue() == text


@pytest.mark.parametrize("kind", ["none", "closed", "no stream", "broken after 0"])
def test_a_warning_that_cannot_be_shown_does_not_end_a_search(monkeypatch, kind):
    monkeypatch.setattr(sys, "stderr", STREAMS[kind]())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.showwarning", lambda *_: sys.stderr.write(""))
        patch.setattr("warnings.filters", [("always", None, Warning, None, 0)])
        warn_user("seen by nobody")
    with pytest.raises(SearchWarning, match="as an error"):
        warn_user("as an error")
