"""crumb search qvlm as a user meets it: partition, controls, the same for any threads, bad values."""
import json
import os
import unittest

from support import CliTest, sample_text


class Qvlm(CliTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.text = cls.path("text.txt")
        with open(cls.text, "w") as file:
            file.write(sample_text())

    def search(self, *more):
        return ["search", "qvlm", self.gguf, "--calib", self.text, "--windows", "2", "--length", "16", "--check-windows",
                "2", "--rotate", "32", *more]

    def test_partition_and_controls(self):
        path = self.path("clips.json")
        done = self.expect(0, *self.search("--fixed", "--pairs", "-o", path))
        with open(path) as file:
            found = json.load(file)
        self.assertEqual(found["schema"], "crumb.qvlm/1")
        self.assertEqual(sum(found["partition"]), len(found["sites"]))
        names = [setting["name"] for setting in found["settings"]]
        self.assertEqual(names, ["unclipped", "site by site", "partition", "fixed blocks"])
        for setting in found["settings"]:
            self.assertEqual(len(setting["clips"]), len(found["sites"]))
            self.assertGreater(setting["kl"], 0)
        self.assertLessEqual(found["settings"][2]["evaluations"], found["settings"][3]["evaluations"] / 4 + 1)
        self.assertEqual(len(found["pairs"]), len(found["sites"]) - 1)
        for word in ("blocks:", "site by site", "R2 with entropy", "evaluations"):
            self.assertIn(word, done.stderr.decode())
        again = self.json_of(*self.search("--fixed", "--pairs", "--json", "-q", "-t", "1"))
        for setting in found["settings"] + again["settings"]:
            setting.pop("seconds")
        self.assertEqual(again, found)

    def test_bad_values(self):
        for more, word in ((("--bits", "5"), "--bits"), (("--input-bits", "9"), "--input-bits"),
                           (("--partition", "all"), "--partition"), (("--group", "48"), "group"),
                           (("--budget", "2"), "--budget")):
            self.assertIn(word, self.expect_error(2, *self.search(*more)), more)
        self.assertIn("too little text", self.expect_error(
            2, "search", "qvlm", self.gguf, "--calib", self.text, "--windows", "60000", "--length", "16"))
        self.expect_error(4, *self.search("-o", os.path.join(self.path("no"), "clips.json")))


if __name__ == "__main__":
    unittest.main()
