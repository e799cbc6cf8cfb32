"""Talks with a model from Python: sample.py MODEL"""
import sys

import crumb

model = crumb.Model(sys.argv[1])
ids = model.tokenize("Hello world")
assert model.detokenize(ids) == b"Hello world", ids
chat = model.chat()
answer = chat.say("What is the capital of France?", temperature=0, max_tokens=24)
chat.clear()
streamed = "".join(crumb.stream(chat.say, "What is the capital of France?", temperature=0, max_tokens=24))
assert streamed == answer["text"], (streamed, answer)
try:
    chat.say("x", temperature=-1)
except crumb.Error as error:
    assert error.code == 2, error.code
else:
    raise AssertionError("a negative temperature was taken")
for piece in crumb.stream(chat.say, "Count to one thousand.", temperature=0, max_tokens=200):
    break  # stops the answer
print(f"crumb {crumb.__version__}, {model.name}: {answer['text']}")
