"""config.toml and CRUMB_*: who wins, and what is said of mistakes."""
import json
import os
import unittest

from support import CliTest


class Settings(CliTest):
    def setUp(self):
        self.config = self.path("config/crumb/config.toml")
        os.makedirs(os.path.dirname(self.config), exist_ok=True)
        self.env = {"XDG_CONFIG_HOME": self.path("config")}

    def set(self, text):
        self.write("config/crumb/config.toml", text)

    def answer(self, *args, **env):
        return self.json_of("run", "hi", "--json", *args, env={**self.env, **env})

    def test_precedence(self):
        self.set(f'model = "{self.crumb}"\nignore_eos = true\nthreads = 1\nseed = 1\npredict = 3\n[run]\nseed = 2\n')
        self.assertEqual(self.answer()["seed"], 2)  # a verb's table before what is for all
        self.assertEqual(len(self.answer()["ids"]), 3)
        self.assertEqual(self.answer()["threads"], 1)
        self.assertEqual(self.answer(CRUMB_SEED="3")["seed"], 3)
        self.assertEqual(self.answer("-s", "4", CRUMB_SEED="3")["seed"], 4)
        self.assertEqual(len(self.answer("-n", "5", CRUMB_PREDICT="4")["ids"]), 5)
        self.assertEqual(self.json_of("run", "hi", env={**self.env, "CRUMB_JSON": "on"})["seed"], 2)
        self.assertNotIn(b'"seed"', self.expect(0, "run", "hi", env={**self.env, "CRUMB_JSON": "0"}).stdout)

    def test_home_without_xdg(self):
        home = self.path("home")
        os.makedirs(home + "/.config/crumb", exist_ok=True)
        self.write("home/.config/crumb/config.toml", "threads = 1\n")
        self.assertEqual(self.json_of("topo", "--json", env={"HOME": home})["threads"], 1)
        # A path that is not absolute counts as not set.
        self.assertEqual(self.json_of("topo", "--json", env={"HOME": home, "XDG_CONFIG_HOME": "x"})["threads"], 1)

    def test_many_values(self):
        text = self.answer("-m", self.crumb, "-n", "40", "--temp", "0", "--ignore-eos")["text"]
        stop = next(text[i:i + 2] for i in range(3, len(text) - 1) if text[i:i + 2].isprintable())
        self.set("[run]\nstop = " + json.dumps(["never seen", stop], ensure_ascii=False) + "\n")
        cut = self.answer("-m", self.crumb, "-n", "40", "--temp", "0", "--ignore-eos")
        self.assertEqual(cut["text"], text[:text.index(stop)])

    def test_mistakes_name_file_and_line(self):
        for text, line, word in [
                ("threads = 1\ntreads = 2\n", 2, "treads"),
                ("\n[runn]\nseed = 1\n", 2, "runn"),
                ("[run]\nseed = 1\nport = 8080\n", 3, "port"),
                ("[run.deep]\nseed = 1\n", 1, "deep"),
                ("threads = \n", 1, "TOML"),
                ("threads = 1\nthreads = 2\n", 2, "TOML"),
                ("threads = \"many\"\n", 1, "many"),
                ("\nthreads = [1]\n", 2, "threads"),
                ("no-pin = 1\n", 1, "no-pin"),
                ("threads = 1979-05-27\n", 1, "threads"),
                ("model = \"\xff\"\n".encode("latin-1"), 1, "TOML"),
                ("x = " + "[" * 100000, 1, "TOML"),
        ]:
            self.set(text)
            error = self.expect_error(2, "topo", env=self.env)
            self.assertIn(f"{self.config}:{line}", error, text)
            self.assertIn(word, error, text)
        for verb in [["version"], ["completion", "bash"], ["topo", "--help"]]:  # not in the way of these
            self.expect(0, *verb, env=self.env)

    def test_mistakes_in_variables(self):
        self.assertIn("CRUMB_THREADS", self.expect_error(2, "topo", env={"CRUMB_THREADS": "many"}))
        self.assertIn("CRUMB_NO_PIN", self.expect_error(2, "topo", env={"CRUMB_NO_PIN": "yes"}))

    def test_config_shows_origins(self):
        self.set("threads = 1\n[run]\nseed = 2\n")
        shown = self.json_of("config", "--json", env={**self.env, "CRUMB_TEMP": "0.5"})
        rows = {(row["verb"], row["option"]): row for row in shown["settings"]}
        self.assertEqual(rows["run", "seed"]["origin"], self.config + ":3")
        self.assertEqual(rows["run", "temp"]["origin"], "CRUMB_TEMP")
        self.assertEqual(rows["topo", "threads"]["values"], ["1"])
        self.assertNotIn(("chat", "seed"), rows)
        self.assertEqual(shown["files"][0], {"path": self.config, "exists": True})
        only = self.expect(0, "config", "run", env=self.env).stdout.decode()
        self.assertIn("--seed = 2", only)
        self.assertNotIn("topo", only)
        self.expect_error(2, "config", "nope")

    def test_every_variable_is_known(self):
        env = {"CRUMB_CTX_SIZE": 128, "CRUMB_API_KEY": "secret", "CRUMB_TREADS": 2}
        shown = self.expect(0, "version", "-v", env=env).stdout.decode()
        self.assertIn("CRUMB_TREADS=2 (unknown to crumb)", shown)
        self.assertIn("CRUMB_CTX_SIZE=128", shown)
        self.assertNotIn("128 (unknown", shown)
        self.assertNotIn("secret", shown)
        for library in ["CLI11", "fmt", "hwloc", "sentencepiece", "xxHash", "libedit", "Boost", "nlohmann-json", "toml++"]:
            self.assertRegex(shown, rf"(?m)^library +{library.replace('+', '[+]')} \d")
        self.assertIn("config.toml", shown)


if __name__ == "__main__":
    unittest.main()
