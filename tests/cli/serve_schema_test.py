"""serve: whatever schema is accepted, the answer validates by jsonschema; what is not is refused by name.

Schemas are drawn at random from all keywords, supported or not; CRUMB_SCHEMAS=N draws more of them.
"""
import datetime
import ipaddress
import json
import os
import random
import re
import unittest
import uuid

from serve_support import ServeTest

try:
    import jsonschema
except ImportError:
    jsonschema = None

CHAT = "/v1/chat/completions"
PATTERNS = [r"^[a-z]+$", r"\d{3}", r"^(ab|c)*d?$", r"^[^\"\\]{1,4}$", r"^\w+@\w+\.(org|net)$", r"^\S{2,5}$", r"x|^y",
            r"^[à-ÿ]{1,3}$", r"^.{2,7}$", r"^(?:[A-F0-9]{2}:){2}[A-F0-9]{2}$", r"[\]\-^]", r"^\D\W$", r"^[\s\d]{1,5}$",
            r"^\u00e9\x41\/$", r"^(?=a)", r"(a)\1", r"^a{2,}b{,3}$", r"a++"]
FORMATS = ["date", "time", "date-time", "duration", "uuid", "ipv4", "ipv6", "email", "hostname", "uri", "regex"]


def date_time(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).tzinfo is not None


CHECKS = {
    "date": datetime.date.fromisoformat,
    "time": lambda t: date_time("2024-01-01T" + t),
    "date-time": date_time,
    "duration": lambda t: re.fullmatch(r"P(?=.)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+S)?)?)", t),
    "uuid": lambda t: str(uuid.UUID(t)) == t,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "email": lambda t: re.fullmatch(r"[\w.+-]+@[\w.-]+\.\w+", t) and ".." not in t,
    "hostname": lambda t: re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z0-9]+(-[a-z0-9]+)?", t) and len(t) <= 253,
    "uri": lambda t: re.fullmatch(r"https?://[^\s/?#]+[^\s]*", t),
}


class Draw:
    """Random schemas, most of them lawful."""

    def __init__(self, seed):
        self.r = random.Random(seed)

    def some(self, **fields):
        return {k: v for k, v in fields.items() if self.r.random() < 0.5}

    def text(self):
        r = self.r
        kind = r.random()
        if kind < 0.35:
            return {"type": "string", "pattern": r.choice(PATTERNS), **(self.some(minLength=2, maxLength=9) if r.random() < 0.3 else {})}
        if kind < 0.7:
            return {"type": "string", "format": r.choice(FORMATS)}
        low = r.randrange(4)
        return {"type": "string", **self.some(minLength=low, maxLength=low + r.randrange(5))}

    def number(self):
        r = self.r
        kind = r.choice(["integer", "number"])
        low = r.randrange(-300, 300)
        bounds = {r.choice(["minimum", "exclusiveMinimum"]): low,
                  r.choice(["maximum", "exclusiveMaximum"]): low + r.randrange(400)}
        schema = {"type": kind, **self.some(**bounds)}
        if r.random() < 0.3:
            schema["multipleOf"] = r.choice([1, 2, 3, 7, 10, 12, 64, 100, 2500, 0.5, 300])
        return schema

    def values(self):
        pool = ["red", "é\"\\", "", 1, 2.5, -3, 0, True, False, None, [], {"a": 1}, [1, "x"], 1.0]
        return self.r.sample(pool, self.r.randrange(1, 6))

    def array(self, depth):
        r = self.r
        low = r.randrange(3)
        schema = {"type": "array", **self.some(minItems=low, maxItems=low + r.randrange(4))}
        kind = r.random()
        if kind < 0.25:
            schema.update(items={"enum": self.values()}, uniqueItems=True)
        elif kind < 0.45:
            schema.update(prefixItems=[self.any(depth + 1) for _ in range(r.randrange(1, 3))])
            if r.random() < 0.5:
                schema["items"] = r.choice([False, {"type": "null"}])
        else:
            schema["items"] = self.any(depth + 1)
            if r.random() < 0.1:
                schema["uniqueItems"] = True
        return schema

    def object(self, depth):
        r = self.r
        names = r.sample(["a", "b c", "é", "x/y", "long_name"], r.randrange(4))
        schema = {"type": "object", "properties": {n: self.any(depth + 1) for n in names}}
        schema["required"] = [n for n in names if r.random() < 0.6] + (["other"] if r.random() < 0.15 else [])
        if r.random() < 0.5:
            schema["additionalProperties"] = r.choice([False, True, {"type": "integer"}])
        if r.random() < 0.1:
            schema[r.choice(["minProperties", "patternProperties", "not", "if", "x-mine"])] = r.choice([1, {}])
        return schema

    def any(self, depth=0):
        r = self.r
        kind = r.randrange(11 if depth < 3 else 6)
        if kind == 0:
            return {"enum": self.values(), **(self.some(type=r.choice(["string", ["string", "null"], "number"])))}
        if kind == 1:
            return {"const": r.choice(self.values())}
        if kind == 2:
            return {"type": r.choice(["boolean", "null", ["integer", "null"], ["string", "boolean"]])}
        if kind == 3:
            return self.text()
        if kind == 4:
            return self.number()
        if kind == 5:
            return {"$ref": r.choice(["#/$defs/tree", "#/$defs/word"])}
        if kind in (6, 7):
            return self.array(depth)
        if kind in (8, 9):
            return self.object(depth)
        return {r.choice(["anyOf", "anyOf", "oneOf", "allOf"]): [self.any(depth + 1) for _ in range(r.randrange(1, 4))]}

    def schema(self):
        return {"$defs": {"word": self.text(), "tree": {
            "type": "object", "properties": {"v": self.any(3), "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}},
            "required": ["v"], "additionalProperties": False}}, **self.any()}


@unittest.skipIf(jsonschema is None, "the package jsonschema is not installed")
class Schemas(ServeTest):
    options = ("-np", "1", "-c", "1024", "-q")

    def ask(self, schema, seed, **fields):
        kind = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        return self.server.post(CHAT, {"messages": [{"role": "user", "content": "x"}], "response_format": kind,
                                       "seed": seed, "max_tokens": 160, "temperature": 1.5, "top_k": 30, **fields})

    def check(self, schema, answer):
        value = json.loads(answer["choices"][0]["message"]["content"])
        checker = jsonschema.FormatChecker(formats=())
        for name, check in CHECKS.items():
            checker.checks(name, raises=ValueError)(lambda v, check=check: not isinstance(v, str) or bool(check(v)))
        jsonschema.Draft202012Validator(schema, format_checker=checker).validate(value)

    def test_every_answer_validates(self):
        counts = {}
        for seed in range(int(os.environ.get("CRUMB_SCHEMAS", "250"))):
            schema = Draw(seed).schema()
            with self.subTest(seed=seed, schema=json.dumps(schema)):
                status, answer = self.ask(schema, seed)
                counts[status] = counts.get(status, 0) + 1
                self.assertIn(status, (200, 400), answer)
                if status == 200:
                    self.check(schema, answer)
                elif answer["error"]["code"] == "invalid_schema":
                    self.assertRegex(answer["error"]["message"], r"at '(/[^']*)?': .")
                else:  # too long for these tokens at the least
                    self.assertIn(answer["error"]["code"], ("invalid_value", "incomplete_answer"), answer)
        self.assertGreater(counts[200], counts.get(400, 0) // 2, counts)

    def test_each_pattern_and_format(self):
        accepted = set()
        for keyword, texts in (("pattern", PATTERNS), ("format", FORMATS)):
            for text in texts:
                schema = {"type": "string", keyword: text}
                for seed in range(6):
                    status, answer = self.ask(schema, seed)
                    if status == 400:
                        self.assertIn(f"'/{keyword}'", answer["error"]["message"])
                        break
                    self.assertEqual(status, 200, answer)
                    self.check(schema, answer)
                    accepted.add(text)
        self.assertEqual([p for p in PATTERNS + FORMATS if p not in accepted],
                         [r"^(?=a)", r"(a)\1", r"^a{2,}b{,3}$", r"a++", "regex"])


if __name__ == "__main__":
    unittest.main()
