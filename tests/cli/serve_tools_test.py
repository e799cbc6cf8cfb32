"""serve: tools: whatever a model says, a call's arguments are valid; streamed and whole; two kinds of templates."""
import json
import os
import subprocess
import unittest

from serve_support import ServeTest
from support import MAKE_TINY

CHAT = "/v1/chat/completions"
TOOLS = [
    {"type": "function", "function": {
        "name": "weather", "description": "The weather of a city", "parameters": {
            "type": "object", "required": ["city", "days"], "additionalProperties": False, "properties": {
                "city": {"type": "string", "pattern": "^[A-Z][a-z]{1,8}$"},
                "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 31}, "maxItems": 3}}}}},
    {"type": "function", "function": {"name": "now"}}]


def valid(call):
    arguments = json.loads(call["function"]["arguments"])
    if call["function"]["name"] == "now":
        return isinstance(arguments, dict)
    city, days = arguments["city"], arguments["days"]
    return (set(arguments) == {"city", "days"} and 2 <= len(city) <= 9 and city[0].isupper() and city[1:].islower()
            and len(days) <= 3 and all(isinstance(d, int) and 1 <= d <= 31 for d in days))


class Tools(ServeTest):
    options = ("-np", "2", "-c", "1024")

    def body(self, **fields):
        return {"messages": [{"role": "user", "content": "How warm is it in Rome?"}], "tools": TOOLS, "temperature": 1.8,
                "top_k": 0, "min_p": 0, "top_p": 1, "max_tokens": 120, **fields}

    def choice(self, **fields):
        status, answer = self.server.post(CHAT, self.body(**fields))
        self.assertEqual(status, 200, answer)
        return answer["choices"][0]

    def check_calls(self, choice, least, most):
        calls = choice["message"].get("tool_calls", [])
        self.assertTrue(least <= len(calls) <= most, choice)
        for call in calls:
            self.assertEqual(call["type"], "function")
            self.assertRegex(call["id"], r"^call_[0-9a-f]{24}$")
            self.assertTrue(valid(call), call)
        self.assertEqual(len({c["id"] for c in calls}), len(calls))
        if calls and choice["finish_reason"] != "length":
            self.assertEqual(choice["finish_reason"], "tool_calls")
        return calls

    def test_required(self):
        names = set()
        for seed in range(12):
            choice = self.choice(tool_choice="required", seed=seed)
            names |= {c["function"]["name"] for c in self.check_calls(choice, 1, 20)}
            self.assertIsNone(choice["message"]["content"])
        self.assertEqual(names, {"weather", "now"})

    def test_one_by_name(self):
        for seed in range(6):
            choice = self.choice(tool_choice={"type": "function", "function": {"name": "weather"}}, seed=seed)
            self.assertEqual(self.check_calls(choice, 1, 1)[0]["function"]["name"], "weather")
            self.assertEqual(choice["finish_reason"], "tool_calls")

    def test_not_more_than_one(self):
        for seed in range(4):
            self.check_calls(self.choice(tool_choice="required", parallel_tool_calls=False, seed=seed), 1, 1)

    def test_of_its_own_accord(self):
        """A random model calls nothing: it says what it would say without tools in the way."""
        choice = self.choice(seed=1, max_tokens=30)
        self.assertEqual(self.check_calls(choice, 0, 0), [])
        self.assertTrue(choice["message"]["content"])
        self.assertIn(choice["finish_reason"], ("stop", "length"))

    def test_none(self):
        choice = self.choice(tool_choice="none", seed=1)
        self.assertNotIn("tool_calls", choice["message"])

    def test_streamed_is_the_whole(self):
        for seed in range(4):
            fields = {"tool_choice": "required", "seed": seed}
            whole = self.choice(**fields)
            events = self.server.stream(CHAT, self.body(**fields))
            self.assertEqual(events.pop(), "[DONE]")
            calls, content = [], ""
            for event in events:
                delta = event["choices"][0]["delta"]
                content += delta.get("content") or ""
                for part in delta.get("tool_calls", []):
                    if "id" in part:
                        self.assertEqual(part["index"], len(calls))
                        calls.append({"id": part["id"], "type": part["type"],
                                      "function": {"name": part["function"]["name"], "arguments": ""}})
                    calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
            self.assertEqual(content, "")
            self.assertEqual([c["function"] for c in calls],
                             [c["function"] for c in whole["message"]["tool_calls"]])
            self.assertEqual(events[-1]["choices"][0]["finish_reason"], whole["finish_reason"])
            self.assertEqual(events[-1]["x_crumb"]["seed"], seed)

    def test_results_go_back(self):
        calls = self.choice(tool_choice="required", seed=2)["message"]
        status, answer = self.server.post(CHAT, self.body(messages=[
            {"role": "user", "content": "How warm?"}, calls,
            {"role": "tool", "tool_call_id": calls["tool_calls"][0]["id"], "content": "20 degrees"}], max_tokens=8))
        self.assertEqual(status, 200, answer)

    def test_refused(self):
        bad = [{"type": "function", "function": {"name": "f", "parameters": {
            "type": "object", "properties": {"x": {"type": "number", "multipleOf": 0.1}}}}}]
        error = self.expect_refused(400, CHAT, self.body(tools=bad), "tools[0].function.parameters")
        self.assertIn("/properties/x/multipleOf", error["message"])
        self.expect_refused(400, CHAT, self.body(tool_choice={"type": "function", "function": {"name": "g"}}),
                            "tool_choice.function.name")


class HermesTools(Tools):
    """The same over a template that says tools itself."""

    @classmethod
    def prepare(cls):
        source = os.path.join(os.environ["CRUMB_SOURCE_DIR"], "tests", "golden", "templates", "qwen25_style.jinja")
        gguf, cls.crumb = cls.path("hermes.gguf"), cls.path("hermes.crumb")
        subprocess.run([MAKE_TINY, gguf, "2", "64", "1024", "--template", source], check=True, timeout=60)
        made = cls.run_crumb("quantize", gguf, "-o", cls.crumb, "--bits", "4", "--group", "32", "-q")
        assert made.returncode == 0, made.stderr

    def test_the_template_says_them(self):
        self.assertTrue(self.server.get("/props")[1]["template_tools"])


if __name__ == "__main__":
    unittest.main()
