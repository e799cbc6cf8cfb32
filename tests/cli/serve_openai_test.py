"""serve through OpenAI's own Python client: every call it knows here, and its exceptions."""
import json
import unittest

from serve_support import ServeTest, Server

try:
    import openai
except ImportError:
    openai = None


@unittest.skipIf(openai is None, "the package openai is not installed")
class Client(ServeTest):
    options = ("-np", "2", "-c", "1024")

    def setUp(self):
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{self.server.port}/v1", api_key="none", max_retries=0)
        self.addCleanup(self.client.close)

    def chat(self, **fields):
        return self.client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": "hi"}], max_completion_tokens=9, temperature=0, **fields)

    def test_chat_and_stream(self):
        whole = self.chat(seed=1)
        self.assertEqual(whole.choices[0].message.role, "assistant")
        chunks = list(self.chat(seed=1, stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(whole.usage.prompt_tokens_details.cached_tokens, 0)
        self.assertEqual(len(self.chat(n=2).choices), 2)

    def test_logprobs(self):
        content = self.chat(logprobs=True, top_logprobs=3).choices[0].logprobs.content
        self.assertEqual(content[0].logprob, content[0].top_logprobs[0].logprob)
        self.assertEqual(len(content[0].top_logprobs), 3)

    def test_completions_embeddings_models(self):
        answer = self.client.completions.create(model="tiny", prompt=["ab", "cd"], max_tokens=3, echo=True, logprobs=2,
                                                extra_body={"ignore_eos": True})
        self.assertEqual([c.index for c in answer.choices], [0, 1])
        self.assertEqual(len(answer.choices[0].logprobs.tokens), answer.usage.prompt_tokens // 2 + 3)
        self.assertTrue("".join(c.choices[0].text for c in self.client.completions.create(
            model="tiny", prompt="ab", max_tokens=3, stream=True, extra_body={"ignore_eos": True}) if c.choices))
        vectors = self.client.embeddings.create(model="tiny", input=["ab", "cd"])  # the client asks for base64
        self.assertEqual([len(d.embedding) for d in vectors.data], [64, 64])
        floats = self.client.embeddings.create(model="tiny", input="ab", encoding_format="float")
        for a, b in zip(vectors.data[0].embedding, floats.data[0].embedding):
            self.assertAlmostEqual(a, b, places=6)
        self.assertEqual([m.id for m in self.client.models.list()], ["tiny"])
        self.assertEqual(self.client.models.retrieve("tiny").owned_by, "crumb")

    TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}, "days": {"type": "integer", "minimum": 1,
                                                                                      "maximum": 9}},
        "required": ["city"], "additionalProperties": False}}}]

    def test_tools(self):
        asked = [{"role": "user", "content": "x"}]
        choice = self.client.chat.completions.create(model="tiny", messages=asked, tools=self.TOOLS,
                                                     tool_choice="required", parallel_tool_calls=False).choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        call = choice.message.tool_calls[0]
        self.assertEqual(call.function.name, "weather")
        self.assertIn(json.loads(call.function.arguments)["city"], ("Rome", "Oslo"))
        # The call and its result go back as the client writes them.
        answer = self.client.chat.completions.create(
            model="tiny", tools=self.TOOLS, tool_choice="none", max_completion_tokens=5, extra_body={"ignore_eos": True},
            messages=asked + [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}])
        self.assertIsNone(answer.choices[0].message.tool_calls)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        # A stream, put together by the client's own helper.
        with self.client.chat.completions.stream(
                model="tiny", messages=asked, tools=self.TOOLS, seed=5,
                tool_choice={"type": "function", "function": {"name": "weather"}}) as stream:
            final = stream.get_final_completion().choices[0]
        self.assertEqual(final.finish_reason, "tool_calls")
        self.assertIn(json.loads(final.message.tool_calls[0].function.arguments)["city"], ("Rome", "Oslo"))

    def test_exceptions(self):
        for fields in ({"temperature": -1}, {"messages": []}, {"top_p": 2}, {"tools": [{"type": "function", "function": {"name": "a b"}}]},
                       {"messages": [{"role": "user", "content": "x" * 2000}]}):
            given = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **fields}
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client.chat.completions.create(**given)
            self.assertTrue(caught.exception.body["message"])
            self.assertIn(caught.exception.param or "", caught.exception.body["message"] + "messages")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("other")
        with self.assertRaises(openai.NotFoundError):
            self.client.files.list()

    def test_a_wrong_key(self):
        server = Server(self.folder, "-m", self.crumb, "-q", env={"CRUMB_API_KEY": "right-key-1"})
        try:
            for key, error in (("wrong-key-1", openai.AuthenticationError), ("right-key-1", None)):
                with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0) as client:
                    if error is None:
                        self.assertTrue(client.models.list().data)
                    else:
                        self.assertRaises(error, client.models.list)
        finally:
            self.assertEqual(server.stop(), 0)

    def test_leaving_a_stream(self):
        with self.chat(stream=True, extra_body={"ignore_eos": True, "max_tokens": None}) as stream:
            next(iter(stream))
        self.assertTrue(self.chat().choices)


if __name__ == "__main__":
    unittest.main()
