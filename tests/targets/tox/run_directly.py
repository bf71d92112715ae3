"""Calls the actor as the function it is."""

from minimal_worker import count_words

count_words("to be or not to be")
