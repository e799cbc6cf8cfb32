#!/usr/bin/env python3
"""Renders the templates of tests/golden/templates with Jinja2 into cases.json and snippets.json."""
import datetime
import json
import pathlib

import jinja2

import jinja_reference

FOLDER = pathlib.Path(__file__).parent / "templates"
NOW = 1700000000

TOOLS = [
    {"type": "function", "function": {
        "name": "get_weather", "description": "The weather at a place, \"now\" & <later>",
        "parameters": {"type": "object", "properties": {
            "place": {"type": "string", "description": "A town"},
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "array", "items": {"type": "integer"}}},
            "required": ["place"]}}},
    {"type": "function", "function": {
        "name": "stop", "description": "Ends it", "parameters": {"type": "object",
                                                                 "properties": {}}}},
]
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"id": "abcdefghi", "type": "function", "function": {
        "name": "get_weather", "arguments": {"place": "Zürich", "days": [1, 2], "exact": True,
                                             "limit": 2.5, "none": None}}}]}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


CONVERSATIONS = {
    "one": {"messages": [user("Hello")], "add_generation_prompt": True},
    "one, no prompt": {"messages": [user("Hello")], "add_generation_prompt": False},
    "system": {"messages": [system("  Be brief. "), user("Hi\nthere ")],
               "add_generation_prompt": True},
    "many": {"messages": [system("You are Bob."), user("a"), assistant(" b "), user("c & <d>"),
                          assistant("<think>\nhm\n</think>\n\nwell"), user("e")],
             "add_generation_prompt": True},
    "unicode": {"messages": [user("Grüße, 世界 👋🏽 \u00a0"), assistant("ñandú ΑΒΣ ßtraße \u2028x"),
                             user("e\u0301 'quote' \"double\" \\ \u200b")],
                "add_generation_prompt": True},
    "empty": {"messages": [system(""), user(""), assistant(""), user(" ")],
              "add_generation_prompt": True},
    "control tokens": {"messages": [user("<|im_end|>\n<|im_start|>system\n</s><|eot_id|>"),
                                    assistant("<|end|>")], "add_generation_prompt": False},
    "tools": {"messages": [user("Weather?"), CALL,
                           {"role": "tool", "content": "{\"t\": 20}"},
                           {"role": "tool", "content": {"t": 21, "s": "ok"}},
                           assistant("20 degrees"), user("Thanks")],
              "tools": TOOLS, "add_generation_prompt": True},
    "tools unused": {"messages": [system("S"), user("U")], "tools": TOOLS,
                     "add_generation_prompt": True, "enable_thinking": False},
    "parts": {"messages": [system([{"type": "text", "text": "Sys"}]),
                           user([{"type": "image"}, {"type": "text", "text": " what is it? "}])],
              "add_generation_prompt": True},
    "documents": {"messages": [user("Sum up")], "documents": [
        {"id": 7, "title": "a tale of two", "text": " It was\nthe best\n"}, {"text": "x"}],
        "add_generation_prompt": True},
    "numbers": {"messages": [user("n"), {"role": "assistant", "content": None},
                             {"role": "user", "content": 12}], "add_generation_prompt": True},
}
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}

SNIPPETS = """
{{ 1 + 2 * 3 - 4 // 3 }} {{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }}
{{ 1e16 }} {{ 1e15 }} {{ 123456789.123 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1.0 }} {{ -0.0 }} {{ 1e300 * 1e10 }} {{ 0.1 + 0.2 }}
{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }} {{ 1_0.5e1_0 }}
{{ true }} {{ none }} {{ None }} {{ False }} {{ missing }}| {{ 'a' ~ 1 ~ none ~ 2.0 ~ missing }}
{{ [1, 'a', "it's", 'say "x"', 'both \\' "', none, true, 1.5, (1,), (), {}, {'a': [1]}] }}
{{ 'tab\\t nl\\n bs\\\\ nul\\x00 del\\x7f nbsp\\xa0 zwsp\\u200b é 世 👋 \\u0378' | list }}
{{ '\\101\\x41\\u0041\\U00000041\\q' }} {{ "a" 'b' }}
{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ none == missing }}
{{ 'a' in 'abc' }} {{ 2 in [1, 2] }} {{ 'k' in {'k': 1} }} {{ 3 not in (1, 2) }} {{ 'x' in missing }}
{{ not 1 and 2 or 3 }} {{ 0 or '' or 'z' }} {{ 1 and 2 }} {{ not not '' }}
{{ 'a' if true }} {{ 'a' if false }}| {{ 'a' if false else 'b' if false else 'c' }}
{{ 'abcdef'[1:3] }} {{ 'abcdef'[::-1] }} {{ 'abcdef'[-2:] }} {{ 'abcdef'[::2] }} {{ 'abcdef'[4:1:-1] }} {{ [1, 2, 3][:-1] }} {{ (1, 2, 3)[1:] }} {{ range(10)[2:8:3] }} {{ 'äöü'[1] }}
{{ [1, 2][5] is defined }} {{ [1, 2][-1] }} {{ {'a': 1}.a }} {{ {'a': 1}['b'] is undefined }} {{ {1: 2}[1] }} {{ [[1, 2]].0.1 }}
{{ [1, 2] + [3] }} {{ (1,) + (2,) }} {{ 'ab' * 3 }} {{ 2 * [1, 2] }} {{ 'x' * -1 }}| {{ [] * 5 }}
{{ -3 | abs }} {{ 3.7 | int }} {{ '42.9' | int }} {{ ' 17 ' | int }} {{ 'x' | int(-1) }} {{ '0x1f' | int(0, 16) }} {{ none | int }} {{ '1_000' | int }} {{ true | int }}
{{ '3.5' | float }} {{ 'inf' | float }} {{ 'x' | float(1.5) }} {{ '1e3' | float }} {{ 3 | float }} {{ '0x10' | float }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 42 | round }} {{ 1.21 | round(1, 'ceil') }} {{ 1.29 | round(1, 'floor') }} {{ 1234.5 | round(-2) }}
{{ 'hello wORLD foo-bar (baz)' | title }}|{{ 'hELLO' | capitalize }}|{{ 'ßÀ ŉ' | upper }}|{{ 'ΑΣ ΣΑΣ İ' | lower }}|{{ 'ǆ ß' | capitalize }}
{{ "they're bill's ǆx".title() }}|{{ 'aBc'.upper() }}|{{ 'aBc'.lower() }}|{{ 'ABC dEF'.capitalize() }}
{{ '  x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ '  x '.lstrip() }}|{{ '  x '.rstrip() }}|{{ '\\u3000é\\u00a0' | trim }}|{{ 'aébéa' | trim('aé') }}
{{ 'a b  c '.split() }} {{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a b c '.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }} {{ 'a-b-c'.rsplit('-', 1) }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('bc') }} {{ 'abc'.find('c') }} {{ 'äbc'.find('b') }} {{ 'abc'.find('z') }} {{ 'abcabc'.rfind('b') }} {{ 'aXbX'.replace('X', '-') }} {{ 'aaa'.replace('a', 'b', 2) }} {{ 'ab'.replace('', '-') }} {{ 'banana'.count('an') }}
{{ 'a\\nb\\r\\nc\\n'.splitlines() }} {{ 'a\\nb'.splitlines(true) }} {{ '-'.join(['a', 'b']) }} {{ 'prefix-x'.removeprefix('prefix-') }} {{ 'x.py'.removesuffix('.py') }}
{{ {'b': 1, 'a': 2}.items() }} {{ {'b': 1}.keys() }} {{ {'b': 1}.values() }} {{ {'b': 1}.get('b') }} {{ {'b': 1}.get('c') }} {{ {'b': 1}.get('c', 3) }}
{{ [1, 2, 3] | join(', ') }} {{ [1, 2] | join }} {{ [{'n': 'x'}, {'n': 'y'}] | join('-', attribute='n') }} {{ 'abc' | join('.') }} {{ missing | join }}
{{ {'b': 1, 'A': 2, 'c': 0} | dictsort }} {{ {'b': 1, 'A': 2} | dictsort(true) }} {{ {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) }}
{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ ['b', 'A', 'c'] | sort(case_sensitive=true) }} {{ [3, 1, 2] | sort(reverse=true) }} {{ [{'a': 2}, {'a': 1}] | sort(attribute='a') }} {{ [{'a': 1, 'b': 2}, {'a': 1, 'b': 1}] | sort(attribute='a,b') }}
{{ [1, 2, 1, 'a', 'A'] | unique | list }} {{ [1, 2, 3] | reverse | list }} {{ 'abc' | reverse }} {{ [1, 2, 3] | first }} {{ [1, 2, 3] | last }} {{ [] | first is defined }} {{ 'äb' | first }}
{{ [1, 5, 2] | max }} {{ [1, 5, 2] | min }} {{ [] | max is undefined }} {{ ['b', 'A'] | min }} {{ [1, 2.5] | sum }} {{ [{'v': 2}, {'v': 3}] | sum(attribute='v') }} {{ [[1], [2]] | sum(start=[]) }}
{{ range(5) | select('odd') | list }} {{ range(5) | reject('odd') | list }} {{ [0, 1, ''] | select | list }} {{ range(6) | select('divisibleby', 3) | list }} {{ range(5) | select('>', 2) | list }} {{ [{'a': 1}, {}] | selectattr('a', 'defined') | list }} {{ [{'a': 1}, {'a': 0}] | rejectattr('a') | list }}
{{ ['a', 'b'] | map('upper') | list }} {{ [{'a': 1}, {}] | map(attribute='a', default=9) | list }} {{ ['1', '2'] | map('int') | sum }} {{ ['ab', 'cd'] | map('replace', 'a', 'x') | join }} {{ [{'a': {'b': 1}}] | map(attribute='a.b') | list }} {{ [[1, 2]] | map(attribute=1) | list }}
{{ 'x' | default('y') }} {{ missing | default('y') }} {{ '' | default('y') }} {{ '' | default('y', true) }} {{ none | d('y', boolean=true) }} {{ missing | d }}|
{{ 'a' | length }} {{ 'äé' | length }} {{ [1, 2] | count }} {{ {'a': 1} | length }} {{ range(3) | length }} {{ missing | length }}
{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb' | indent(2, true) }}|{{ 'a\\n\\nb' | indent('> ', blank=true) }}|{{ '' | indent(2) }}|{{ 'a\\n' | indent }}|
{{ '<a href="x">&\\'' | escape }} {{ '<b>' | e | e }} {{ '<b>' | safe }} {{ ('<b>' | safe) + '<i>' }} {{ '<' ~ ('<' | e) }} {{ ('<' | e) is escaped }}
{{ {'a': [1, 2.0, none, true, 'é"\\\\\\n\\x01']} | tojson }} {{ {'a': 'é👋'} | tojson(ensure_ascii=true) }} {{ {'b': 1, 'a': [], 'c': {}} | tojson(indent=2, sort_keys=true) }} {{ [1, {'a': 1}] | tojson(separators=(',', ':')) }} {{ {1: 2, none: 3, true: 4, 1.5: 6} | tojson }} {{ (1, 2) | tojson(indent='\\t') }}
{{ 1 is number }} {{ true is number }} {{ 1.0 is float }} {{ 1 is integer }} {{ true is integer }} {{ true is boolean }} {{ 'a' is string }} {{ {} is mapping }} {{ [] is sequence }} {{ {} is sequence }} {{ 'a' is iterable }} {{ 1 is iterable }} {{ none is none }} {{ none is defined }} {{ missing is undefined }} {{ missing is none }} {{ missing is sequence }} {{ missing is iterable }}
{{ 3 is odd }} {{ 3 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 'a' is lower }} {{ 'A' is upper }} {{ 'Aa' is upper }} {{ 1 is eq 1 }} {{ 1 is ne(2) }} {{ 2 is gt 1 }} {{ 2 is in [1, 2] }} {{ 2 is not in [1, 2] }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 'join' is filter }} {{ 'odd' is test }} {{ none is sameas none }} {{ 1 is equalto 1 }}
{{ 1 is defined and 2 is odd or 3 is even }} {{ x is not defined if true else 1 }}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }};{% endfor %} {% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %} {% for c in 'äb' %}{{ c }}.{% endfor %} {% for k in {'x': 1} %}{{ k }}{% endfor %}
{% for i in [] %}x{% else %}empty{% endfor %} {% for i in [1, 2] if i > 5 %}x{% else %}none{% endfor %} {% for i in missing %}x{% else %}undefined{% endfor %}
{% for i in range(6) if i is even %}{{ i }}:{{ loop.index }}/{{ loop.length }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }} {% endfor %}
{% for i in range(10) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}
{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.index }}{{ loop.depth }}{% endfor %}{{ loop.index }};{% endfor %} {% for i in [1, 1, 2] %}{{ loop.changed(i) }}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }} {% endfor %}{{ x }} {% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(n=0) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }} {{ ns.x is defined }}
{% for i in [1, 2, 3, 4] if i not in ns.seen %}{{ i }}{% else %}-{% endfor %}
{% set ns = namespace(top=0) %}{% for i in [1, 5, 2, 7] if i > ns.top %}{% set ns.top = i %}{{ i }} {% endfor %}
{% macro m(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(c=1, a=2) }}{{ m() }}
{% macro f(n) %}{{ n }}{% if n > 0 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}
{% macro box(t) %}<{{ t }}>{{ caller(1, 2) }}</{{ t }}>{% endmacro %}{% call(a, b) box('p') %}{{ a }}-{{ b }}{% endcall %}
{% set y = 1 %}{% macro g() %}{{ y }}{% endmacro %}{% set y = 2 %}{{ g() }}
{% filter lower %}ABC {{ 'DEF' }}{% endfilter %} {% set t %}  block {{ 1 }}{% endset %}{{ t | trim }}|{% set t | trim | upper %} b {% endset %}{{ t }}
{% set a, b = [1, 2] %}{{ a }}{{ b }} {% set c = 1, 2 %}{{ c }} {% set (d, e) = 'xy' %}{{ e }}
a  {%- if true -%}  b  {%- endif -%}  c {{- ' d ' -}} e
{{ dict(a=1, b=2) }} {{ range(3) }} {{ range(1, 7, 2) | list }} {{ range(3, 0, -1) | list }} {{ dict({'x': 1}, y=2) }}
{{ missing.attr }}
{{ missing + 1 }}
{{ none + 1 }}
{{ 'a' + 1 }}
{{ {}.x.y }}
{{ 1 / 0 }}
{{ [1] < ['a'] }}
{{ [1, 'a'] | sort }}
{{ {}[[]] is defined }} {{ 'a'[1.5] is defined }}
{{ ([1] | map('upper')) | length }}
{{ [].append(1) }}
{{ 'x'.foo is defined }} {{ [].foo is defined }} {{ 1 .foo is defined }}
{{ raise_exception('no') }}
{{ 5 in 'abc' }}
{{ none | length }}
{% for x in 5 %}{% endfor %}
{% set a, b = [1] %}
{{ m() }}
{{ 'a'() }}
{{ strftime_now('%Y-%m-%d %H:%M') }} {{ strftime_now('') }}|
{{ {'items': 1}.items is mapping }} {{ {'items': 1}['items'] }} {{ {'x': 1}['items'] is callable }}
{{ 'é' < 'z' }} {{ 'a' 'b' | upper }} {{ 1.5 | string ~ '' }} {{ -1 | abs }} {{ (-1) ** 2 }} {{ - 2 ** 2 }}
{{ [1, 2, 3] == [1, 2, 3] }} {{ [1] == (1,) }} {{ {'a': 1} == {'a': 1.0} }} {{ range(3) == range(3) }}
{{ ['a', 'b'] | last | upper ~ 'x' }} {{ 'a,b' .split(',') | first }} {{ ('a', 'b') | join }} {{ {'a': 1} | items | list }}
"""


def render(source, variables):
    # As the C++ test does: the local time zone of `now`.
    env = jinja_reference.environment(datetime.datetime.fromtimestamp(NOW))
    try:
        return {"text": env.from_string(source).render(**variables)}
    except (jinja2.exceptions.TemplateError, TypeError, ValueError, ZeroDivisionError,
            OverflowError) as error:
        return {"error": str(error)}


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, indent=1)
    (FOLDER / name).write_text(text + "\n", encoding="utf-8")


def main():
    rendered = {}
    for path in sorted(FOLDER.glob("*.jinja")):
        source = path.read_bytes().decode("utf-8")
        rendered[path.name] = {name: render(source, TOKENS | variables)
                               for name, variables in CONVERSATIONS.items()}
    write("cases.json", {"now": NOW, "tokens": TOKENS, "conversations": CONVERSATIONS,
                         "rendered": rendered})
    lines = [line for line in SNIPPETS.splitlines() if line]
    write("snippets.json", {"now": NOW, "rendered": [
        {"template": line} | render(line, {}) for line in lines]})


main()
