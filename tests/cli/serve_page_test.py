"""serve's web page: what its policy says, and the page itself in headless Chromium, if that is here."""
import json
import os
import re
import shutil
import subprocess
import time
import unittest
import urllib.request

from serve_support import ServeTest, wait_until

CHROME, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


class Page(ServeTest):
    def test_one_small_page_with_a_strict_policy(self):
        status, headers, data = self.server.request("GET", "/")
        self.assertEqual(status, 200)
        self.assertEqual(headers["content-type"], "text/html; charset=utf-8")
        self.assertLessEqual(len(data), 40 << 10)
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        self.assertEqual(policy["default-src"], "'none'")
        self.assertEqual(policy["connect-src"], "'self'")
        nonce = re.fullmatch(r"'nonce-([0-9a-f]{32})'", policy["script-src"])[1]
        text = data.decode()
        self.assertEqual(set(re.findall(r"<(?:script|style)[^>]*>", text)),
                         {f'<script nonce="{nonce}">', f'<style nonce="{nonce}">'})
        again = self.server.request("GET", "/")[1]["content-security-policy"]
        self.assertNotIn(nonce, again, "a number of its own for every page")
        self.assertFalse(re.findall(r"https?://|@import|innerHTML|\beval\(|\son\w+=|\sstyle=", text))


class Driver:
    """The few WebDriver calls this needs."""

    def __init__(self, folder):
        self.process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        env=dict(os.environ, HOME=folder))
        port = None
        for line in self.process.stdout:
            found = re.search(rb"started successfully on port (\d+)", line)
            if found:
                port = int(found[1])
                break
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"binary": CHROME, "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=900,700",
                                              "--disable-dev-shm-usage", f"--user-data-dir={folder}/chrome"]}
        made = self.call("POST", "", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.base += "/" + made["sessionId"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(self.base + path, method=method,
                                         data=None if body is None else json.dumps(body).encode(),
                                         headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())["value"]

    def run(self, script, *args):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def keys(self, text):
        """Typed into whatever has the focus."""
        actions = [{"type": kind, "value": c} for c in text for kind in ("keyDown", "keyUp")]
        self.press(actions)

    def press(self, actions):
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]})

    def chord(self, modifier, key):
        self.press([{"type": "keyDown", "value": modifier}, {"type": "keyDown", "value": key},
                    {"type": "keyUp", "value": key}, {"type": "keyUp", "value": modifier}])

    def complaints(self):
        return [entry["message"] for entry in self.call("POST", "/se/log", {"type": "browser"})
                if entry["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, path):
        import base64
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("GET", "/screenshot")))

    def stop(self):
        try:
            self.call("DELETE", "")
        finally:
            self.process.terminate()
            self.process.wait(20)
            self.process.stdout.close()


ENTER, ESCAPE, SHIFT, CONTROL, ALT = "\ue007", "\ue00c", "\ue008", "\ue009", "\ue00a"


@unittest.skipIf(not CHROME or not DRIVER, "chromium and chromium-driver are not installed")
class Browser(ServeTest):
    options = ("-np", "2", "-c", "1024")

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.driver = Driver(cls.folder)

    @classmethod
    def tearDownClass(cls):
        cls.driver.stop()
        super().tearDownClass()

    def setUp(self):
        self.driver.call("POST", "/url", {"url": f"http://127.0.0.1:{self.server.port}/"})
        self.assertTrue(wait_until(lambda: self.driver.run("return document.title") == "tiny"))

    def tearDown(self):
        self.assertEqual(self.driver.complaints(), [], "nothing breaks the policy")

    def articles(self):
        return self.driver.run("return [...document.querySelectorAll('article')].map(a => "
                               "[a.className, a.querySelector('.text').textContent])")

    def idle(self):
        return wait_until(lambda: self.driver.run("return document.getElementById('send').textContent") == "Send")

    def set(self, **values):
        for name, value in values.items():
            self.driver.run("const f = document.getElementById('field-' + arguments[0]); f.value = arguments[1];"
                            "f.dispatchEvent(new Event('change'))", name, value)

    def test_by_keyboard_alone(self):
        self.set(max_tokens="12", temperature="0", seed="1")
        self.driver.keys("one")
        self.driver.chord(SHIFT, ENTER)
        self.driver.keys("two" + ENTER)
        self.assertTrue(self.idle())
        (role, text), (other, answer) = self.articles()
        self.assertEqual((role, text, other), ("user", "one\ntwo", "assistant"))
        body = {"messages": [{"role": "user", "content": "one\ntwo"}], "max_tokens": 12, "temperature": 0, "seed": 1}
        want = self.server.post("/v1/chat/completions", body)[1]["choices"][0]["message"]["content"]
        self.assertEqual(answer.replace("`", ""), want.replace("`", ""))
        self.driver.chord(ALT, "r")
        self.assertTrue(self.idle())
        self.assertEqual(self.articles(), [[role, text], [other, answer]])
        self.assertRegex(self.driver.run("return document.getElementById('speed').textContent"), r"^[\d.]+ tok/s$")
        used = self.driver.run("return document.getElementById('used').textContent")
        self.assertRegex(used, r"^\d+ / 1024$")
        self.driver.chord(CONTROL, ",")
        self.assertFalse(self.driver.run("return document.getElementById('panel').hidden"))
        self.driver.keys(ESCAPE)
        self.assertTrue(self.driver.run("return document.getElementById('panel').hidden"))

    def test_stop(self):
        self.set(max_tokens="", temperature="2", top_k="0", min_p="0", top_p="1")
        for _ in range(20):  # until an answer is long enough to be stopped
            self.driver.keys("x" + ENTER)
            self.driver.keys(ESCAPE)
            self.assertTrue(self.idle())
            if "stopped" in self.driver.run("return document.getElementById('log').textContent"):
                break
        else:
            self.fail("no answer could be stopped")
        self.assertTrue(wait_until(lambda: self.server.metric("crumb_requests_in_flight") == 0))

    def test_errors_are_shown(self):
        self.set(max_tokens="5", temperature="0")
        self.driver.run("document.getElementById('message').value = arguments[0]", "y" * 3000)
        self.driver.keys(" " + ENTER)
        self.assertTrue(self.idle())
        role, text = self.articles()[1]
        self.assertEqual(role, "assistant error")
        self.assertIn("context", text)
        self.driver.complaints()  # the browser notes the status 400

    def test_what_a_model_writes_is_text(self):
        hostile = "<img src=x onerror=alert(1)> ```html\n<script>alert(1)</script>\n``` **b** `<b>`"
        self.driver.run("messages = [{role: 'user', content: 'a'}, {role: 'assistant', content: arguments[0], note: ''}];"
                        "showAll()", hostile)
        self.assertEqual(self.driver.run("return document.querySelectorAll('article img, article script, article b').length"), 0)
        self.assertIn("<img src=x", self.articles()[1][1])

    def test_looks(self):
        """For the eye: CRUMB_SCREENSHOTS names the folder."""
        folder = os.environ.get("CRUMB_SCREENSHOTS", self.folder)
        self.driver.run(
            "messages = [{role: 'user', content: 'How do I list files by size?'}, {role: 'assistant', content: arguments[0],"
            "note: ''}]; showAll(); showUse(700); document.getElementById('speed').textContent = '74.1 tok/s'",
            "Use `ls` with a sort key:\n\n```sh\nls -lS | head\n```\nThe largest come first.")
        for theme in ("light", "dark"):
            self.driver.run("setTheme(arguments[0])", theme)
            for name, width, height in (("desk", 900, 700), ("phone", 375, 700)):
                self.driver.call("POST", "/window/rect", {"width": width, "height": height})
                self.driver.screenshot(os.path.join(folder, f"page-{theme}-{name}.png"))
                wide = self.driver.run("return [document.documentElement.scrollWidth, innerWidth]")
                self.assertLessEqual(wide[0], wide[1], "nothing sticks out")
        self.driver.run("openPanel(true)")
        self.driver.screenshot(os.path.join(folder, "page-dark-settings.png"))
        self.driver.run("setTheme('light'); openPanel(false)")


if __name__ == "__main__":
    unittest.main()
