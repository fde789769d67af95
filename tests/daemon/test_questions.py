"""What is sent to ask for an approval: the documented shapes, whatever the texts in it are, and no way in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.questions import Format, Question, as_json, render, slack, teams

FORMATS: tuple[Format, ...] = ("slack", "teams", "json")
QUESTION = Question(
    run="184", procedure="start-rollout", title="Roll a new version out", step="promote",
    step_title="Promote the challenger", service="flights", command="rollout.promote service=flights",
    evidence="errors: ln E 0.4 of 4.6 after 12,000 requests; no sign that it is worse", starter="ann",
    roles=("approver", "admin"), not_initiator=True, wanted=2, given=("bob",), expires=1_795_000_000.0,
    digest="0123456789abcdef", host="ops1", written="written by Cat <cat@example.org> (cat), commit 1a2b3c4d")
HOSTILE = ("<!channel> & <https://evil.example|click> @here *x* `y` [a](https://evil.example) ```\n# x "
           "\x1b]0;title\x07\u202eright")


def walk(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key with its value, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)


def strings(value: Any) -> list[str]:
    return [inner for _, inner in walk({"": value}) if isinstance(inner, str)] + (
        [one for _, inner in walk({"": value}) if isinstance(inner, list)
         for one in inner if isinstance(one, str)])


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_tells_all_there_is_to_know(format: Format) -> None:
    text = "\n".join(strings(render(format, QUESTION)))
    for part in ("Roll a new version out", "flights", "start-rollout", "184", "ann", "promote",
                 "Promote the challenger", "rollout.promote service=flights", "no sign that it is worse",
                 "approver", "admin", "bob", "ops1", "written by Cat", "opsdeck approve 184 promote",
                 "opsdeck reject 184 promote"):
        assert part in text, part


def test_the_people_and_the_time_are_said_in_words() -> None:
    text = "\n".join(strings(slack(QUESTION)))
    assert ("2 people with the role approver or admin, not ann, who started it, nor one who wrote it; "
            "given by bob") in text
    assert "2026-11-18 11:06:40Z" in text
    alone = replace(QUESTION, wanted=1, not_initiator=False, given=(), roles=("approver",), expires=None,
                    written="")
    assert dict(alone.facts())["Who may"] == "1 person with the role approver"
    assert dict(alone.facts())["Expires"] == "does not expire"


def test_the_command_is_bound_to_what_was_asked_and_safe_to_paste() -> None:
    assert QUESTION.approve == "opsdeck approve 184 promote --digest 0123456789abcdef"
    assert QUESTION.reject == "opsdeck reject 184 promote"
    odd = replace(QUESTION, step="x; rm -rf ~", home="/srv/my home")
    assert odd.approve == ("opsdeck approve 184 'x; rm -rf ~' --digest 0123456789abcdef "
                           "--home '/srv/my home'")


@pytest.mark.parametrize("format", FORMATS)
def test_no_message_carries_anything_that_could_open_the_gate(format: Format) -> None:
    """No button, no link, no callback: whoever answers does so at the command."""
    sent = render(format, replace(QUESTION, title=HOSTILE, command=HOSTILE, evidence=HOSTILE,
                                  written=HOSTILE))
    keys = {key.lower() for key, _ in walk(sent)}
    assert not keys & {"actions", "action", "action_id", "accessory", "url", "button", "potentialaction",
                       "callback_id", "response_url", "targets", "selectaction", "refresh", "token"}
    types = {value for key, value in walk(sent) if key == "type"}
    assert not types & {"actions", "button", "input", "Action.Http", "Action.Execute", "Action.Submit",
                        "Action.OpenUrl", "ActionSet"}


def test_slack_gets_blocks_in_their_documented_shape_and_limits() -> None:
    sent = slack(replace(QUESTION, title=HOSTILE * 9, command=HOSTILE * 99, evidence=HOSTILE * 99,
                         step_title=HOSTILE * 9, again=True))
    assert set(sent) == {"text", "blocks"} and len(sent["blocks"]) <= 50
    header, section, *codes = sent["blocks"]
    assert header["type"] == "header" and header["text"]["type"] == "plain_text"
    assert 0 < len(header["text"]["text"]) <= 150
    assert section["type"] == "section" and 1 <= len(section["fields"]) <= 10
    for field in section["fields"]:
        assert field["type"] == "mrkdwn" and 0 < len(field["text"]) <= 2000
    assert [block["type"] for block in codes] == ["rich_text"] * 3
    for block in codes:
        label, code = block["elements"]
        assert (label["type"], code["type"]) == ("rich_text_section", "rich_text_preformatted")
        assert code["elements"][0]["type"] == "text" and code["elements"][0]["text"]


def test_slack_sees_no_mention_and_no_link_in_what_others_wrote() -> None:
    sent = slack(replace(QUESTION, title=HOSTILE, evidence=HOSTILE, step_title=HOSTILE, starter="<!here>"))
    parsed = [sent["text"], *(field["text"] for field in sent["blocks"][1]["fields"])]
    assert all("<" not in text and ">" not in text for text in parsed)
    assert "&lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;" in "\n".join(parsed)


def test_teams_gets_an_adaptive_card_in_the_envelope_of_its_workflows() -> None:
    sent = teams(replace(QUESTION, title=HOSTILE * 9, command=HOSTILE * 99, evidence=HOSTILE * 99))
    assert sent["type"] == "message" and len(sent["attachments"]) == 1
    attachment = sent["attachments"][0]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["contentUrl"] is None
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert card["$schema"] == "http://adaptivecards.io/schemas/adaptive-card.json"
    for block in card["body"]:  # TextRuns have no markup, which TextBlocks and facts have
        assert block["type"] == "RichTextBlock"
        assert all(run["type"] == "TextRun" and run["text"] for run in block["inlines"])
    assert len(json.dumps(sent).encode()) < 28_000  # the most that Teams takes


def test_json_names_its_question_so_that_a_second_one_can_be_left_out() -> None:
    assert as_json(QUESTION)["id"] == as_json(replace(QUESTION, again=True))["id"]
    assert as_json(QUESTION)["id"] != as_json(replace(QUESTION, digest="f" * 16))["id"]
    assert as_json(replace(QUESTION, again=True))["again"] is True
    assert "second time" in "\n".join(strings(slack(replace(QUESTION, again=True))))


def test_texts_that_grow_by_escaping_stay_within_slacks_limits_and_none_is_empty() -> None:
    sent = slack(replace(QUESTION, evidence="<" * 4000, roles=tuple("&" * 300 for _ in range(9)), command=""))
    assert all(len(field["text"]) <= 2000 for field in sent["blocks"][1]["fields"])
    assert all(text for key, text in walk(sent) if key == "text")


@given(st.text(max_size=4000), st.text(max_size=400), st.sampled_from(FORMATS))
def test_any_text_gives_a_message_that_is_json_and_holds_no_control_characters(long: str, short: str,
                                                                              format: Format) -> None:
    sent = render(format, replace(QUESTION, title=short, command=long, evidence=long or None))
    json.dumps(sent)
    for text in strings(sent):
        assert not any((ord(c) < 32 and c not in "\n\t") or ord(c) == 127 for c in text), repr(text)
