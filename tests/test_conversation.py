"""Conversations are well formed, or they aren't made."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_api.conversation import Conversation, ConversationError, Message


def test_texts_are_the_users_and_the_assistants_in_turn():
    conversation = Conversation.from_texts(["a", "b", "c"], "s")
    assert conversation.system_prompt == "s"
    assert conversation.messages == (
        Message("user", "a"),
        Message("assistant", "b"),
        Message("user", "c"),
    )
    assert conversation.all_messages == (Message("system", "s"), *conversation.messages)


def test_without_a_system_prompt_there_is_no_message_of_it():
    conversation = Conversation.from_texts(["a"])
    assert conversation.all_messages == conversation.messages == (Message("user", "a"),)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ([], "at least one message"),
        (["a", "b"], "there are 2 messages"),
        (["a"] * 4, "must be odd"),
    ],
)
def test_the_user_has_the_last_word(texts, reason):
    with pytest.raises(ConversationError, match=reason):
        Conversation.from_texts(texts)


def test_consecutive_messages_of_a_role_are_joined_by_a_newline():
    conversation = Conversation.from_messages(
        [
            ("system", "s"),
            ("system", "t"),
            ("user", "a"),
            ("user", "b"),
            ("assistant", "c"),
            ("user", "d"),
        ]
    )
    assert conversation == Conversation.from_texts(["a\nb", "c", "d"], "s\nt")


def test_a_system_message_replaces_the_system_prompt():
    replaced = Conversation.from_messages([("system", "mine"), ("user", "a")], "the server's")
    assert replaced.system_prompt == "mine"
    kept = Conversation.from_messages([("user", "a")], "the server's")
    assert kept.system_prompt == "the server's"


def test_the_assistant_may_begin():
    conversation = Conversation.from_messages([("assistant", "Hi!"), ("user", "a")])
    assert [message.role for message in conversation.messages] == ["assistant", "user"]


@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ([], "the last message must be the user's"),
        (["system"], "the last message must be the user's"),
        (["user", "assistant"], "the last message must be the user's"),
        (["user", "system", "user"], "only the first message can be the system's"),
        (["tool", "user"], "unknown role 'tool': a role is one of system, user, assistant"),
        (["User"], "unknown role 'User'"),
    ],
)
def test_messages_that_are_no_conversation(roles, reason):
    with pytest.raises(ConversationError, match=reason):
        Conversation.from_messages([(role, "x") for role in roles])


def test_a_conversation_cannot_be_made_with_two_turns_of_a_role():
    with pytest.raises(ConversationError, match="in turn"):
        Conversation("", (Message("user", "a"), Message("user", "b")))


@given(st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=3))))
def test_what_is_made_is_well_formed_and_loses_no_text(messages):
    try:
        conversation = Conversation.from_messages(messages)
    except ConversationError:
        return
    roles = [message.role for message in conversation.messages]
    assert roles[-1] == "user"
    assert "system" not in roles
    assert all(a != b for a, b in pairwise(roles))
    assert "\n".join([message.text for message in conversation.messages]) == "\n".join(
        text for role, text in messages if role != "system"
    )
