// The calibration text of this project, written for it: nothing here is copied from elsewhere.
#include <algorithm>
#include <array>
#include <iterator>
#include <random>
#include <utility>

#include "quant/corpus.h"

namespace crumb::quant {
namespace {

constexpr std::string_view kProse[] = {
    R"(The ferry left the harbour twenty minutes late, because a cow had wandered onto the ramp and
refused to be reasoned with. Marta watched from the upper deck while two deckhands, a farmer and a
boy with a carrot negotiated. When at last the animal turned around, the passengers clapped, and the
captain sounded the horn as if the whole affair had been planned. By noon the island was a grey line
on the water, and by two o'clock one could count the windows of the lighthouse. Marta had not been
back in eleven years. She expected the place to look smaller, as everyone says of the rooms they grew
up in, but it did not. The cliffs were just as high, and the wind was just as rude.)",
    R"(Bread is mostly patience. Flour, water, salt and a little yeast are stirred together until no
dry spots are left, and then the dough is left alone. During the first hour nothing seems to happen.
After three, bubbles rise along the side of the bowl; after eight, the dough has doubled and smells
faintly of apples. Fold it gently, because the gas inside is the only thing that will lift it in the
oven. Bake it hot, with a pan of steaming water on the lower shelf, for about forty minutes. The loaf
is done when it sounds hollow on being tapped underneath. Let it cool before you cut it, however
hard that is.)",
    R"(A river does not flow in a straight line for long. Where the current meets a slight bend it runs
faster along the outer bank and slower along the inner one. The outer bank is worn away, the inner
one collects sand, and so the bend grows. Over centuries the loops become so wide that the river
meets itself: in a flood it breaks through the narrow neck of land, and the old loop is left behind
as a lake in the shape of a horseshoe. Seen from the air, a flood plain is a record of such decisions,
each written over the one before.)",
    R"(The committee met on Tuesday to discuss the new timetable. Three proposals had been submitted in
advance. The first would keep the present hours but shorten the lunch break; the second would open the
library on Saturday mornings; the third, which nobody admitted having written, suggested closing on
rainy days. After some debate the second proposal was accepted by seven votes to two, with one
abstention. The treasurer pointed out that heating the reading room for another four hours a week
would cost about nine hundred euros a year, and asked that the decision be reviewed in the spring.)",
    R"(Memory in a computer is arranged in layers. Closest to the arithmetic are a few registers, which
answer at once. Behind them lie caches: small, fast and automatic. Main memory is a thousand times
larger and about a hundred times slower, and a disk is slower again. A program that walks through its
data in order is fast because every layer can guess what comes next. A program that jumps about is
slow for the same reason that a cook is slow who must fetch each spice from a different shop. Most
advice about performance comes down to this: use what you have already fetched before you fetch more.)",
    R"(Dear Mr Okafor,

Thank you for your letter of 14 March concerning the delivery of the two oak bookcases. I am sorry
that one of them arrived with a cracked shelf. We have ordered a replacement from the workshop, and
our driver will call you next week to agree on a day. There is no need to return the damaged part; the
driver will take it with him. As an apology we have deducted 10% from the invoice.

With kind regards,
Helen Brandt, customer service)",
    R"(On clear nights in late summer the old observatory opens its doors. Visitors climb the iron stairs
one at a time, because the third step is loose, and wait their turn at the eyepiece. Saturn is the
favourite. Children say that it looks like a sticker; their grandparents say nothing for a while. The
volunteer who turns the dome has done so for thirty years. Asked whether he is not tired of the same
planet, he shrugs. "It is never in the same place," he says, "and neither am I.")",
    R"(Trade along the coast depended on salt. Fish caught in spring had to last until winter, and only
salt would keep it. The towns that owned shallow bays let the sea into wide clay basins, closed the
gates and waited for the sun. What remained was raked into white heaps, taxed, loaded onto mules and
carried over the passes. Kings fought over the basins more often than over castles. When cheaper salt
from mines arrived by railway, the bays were abandoned within a generation, and today herons nest
where the overseers used to sleep.)",
};

constexpr std::string_view kNotes[] = {
    R"(# Checklist before a long walk

- Water: at least 1.5 litres a person
- Map, even if the phone is charged
- Plasters, a whistle and a torch
- Bread, cheese, two apples, something sweet
- A dry pair of socks in a plastic bag

Tell someone where you are going and when you mean to be back.)",
    R"(def moving_average(values, width):
    """Mean of each run of `width` neighbouring values."""
    if width < 1 or width > len(values):
        raise ValueError("width must lie between 1 and the number of values")
    total = sum(values[:width])
    means = [total / width]
    for i in range(width, len(values)):
        total += values[i] - values[i - width]
        means.append(total / width)
    return means


print(moving_average([3, 5, 8, 2, 6], 2))  # [4.0, 6.5, 5.0, 4.0])",
    R"(#include <stdio.h>

/* Counts the words of standard input: runs of characters that are not blank. */
int main(void) {
  long words = 0;
  int inside = 0, c;
  while ((c = getchar()) != EOF) {
    int blank = c == ' ' || c == '\n' || c == '\t';
    if (!blank && !inside) ++words;
    inside = !blank;
  }
  printf("%ld\n", words);
  return 0;
})",
    R"(SELECT city, COUNT(*) AS orders, ROUND(AVG(total), 2) AS average
FROM orders JOIN customers ON customers.id = orders.customer_id
WHERE orders.placed >= '2024-01-01'
GROUP BY city
HAVING COUNT(*) > 10
ORDER BY average DESC
LIMIT 20;)",
    R"(Theorem. The square root of 2 is not a fraction. Proof. Suppose that p/q is a fraction in lowest
terms with (p/q)^2 = 2. Then p^2 = 2q^2, so p^2 is even, and therefore p is even, say p = 2r. Then
4r^2 = 2q^2, hence q^2 = 2r^2, and q is even as well. But then p and q have the common factor 2, which
contradicts the choice of lowest terms. So there is no such fraction.)",
    R"({"name": "garden sensor", "version": 3, "readings": [{"time": "06:00", "celsius": 8.5},
{"time": "12:00", "celsius": 17.25}, {"time": "18:00", "celsius": 14.0}], "battery": 0.82,
"active": true, "note": null})",
};

struct Exchange {
  std::string_view question, answer;
};
constexpr Exchange kChats[] = {
    {"Why is the sky blue?",
     "Sunlight contains all colours. The molecules of air scatter short waves much more strongly "
     "than long ones, so blue light reaches your eye from every direction of the sky, while red "
     "light mostly goes straight on. At sunset the light has crossed so much air that the blue has "
     "been scattered out of it, and what is left looks orange or red."},
    {"What is the capital of Portugal, and on which river does it lie?",
     "The capital of Portugal is Lisbon. It lies on the river Tagus, close to where it meets the "
     "Atlantic Ocean."},
    {"Write a short poem about a bicycle in winter.",
     "It leans beneath a sheet of snow,\nits bell too cold to ring,\nand dreams of every road I "
     "know\nthat both of us take slow, so slow,\non the first warm day of spring."},
    {"How do I reverse a list in Python?",
     "There are two common ways:\n\n1. `items.reverse()` reverses the list in place and returns "
     "`None`.\n2. `items[::-1]` or `list(reversed(items))` gives a new list and leaves the old one "
     "as it was.\n\nUse the first if you no longer need the original order."},
    {"I have 24 apples and give a third of them to my sister. She eats two. How many does she "
     "have?",
     "A third of 24 is 24 / 3 = 8 apples. After eating two she has 8 - 2 = 6 apples left."},
    {"Rewrite this politely: Send me the report now.",
     "Could you please send me the report as soon as you have a moment? Thank you very much."},
    {"Can you give me three tips for sleeping better?",
     "Of course:\n\n1. Go to bed and get up at the same time every day, also at weekends.\n2. Keep "
     "the bedroom dark, quiet and cool.\n3. Put away bright screens and heavy meals at least an "
     "hour before you lie down.\n\nIf you still sleep badly after a few weeks, talk to a doctor."},
    {"Explain what a hash table is to a beginner.",
     "Imagine a row of numbered drawers. To store a name you compute a number from its letters and "
     "put the name into the drawer with that number. To find it again you compute the same number "
     "and open only that drawer. If two names share a drawer, you keep a short list inside it. As "
     "long as there are enough drawers, finding something takes about the same time however many "
     "names you have stored."},
    {"Who won the football match in my village yesterday?",
     "I have no way of knowing that: I cannot look up local results. The club's website or a "
     "neighbour who was there could tell you."},
    {"Summarise in one sentence: The museum will be closed from Monday to Thursday while the roof "
     "is "
     "repaired, but the garden and the cafe stay open, and tickets already bought remain valid "
     "until "
     "the end of the year.",
     "The museum is closed for roof repairs from Monday to Thursday, with garden and cafe open and "
     "existing tickets valid until the end of the year."},
};

using Bits = std::mt19937_64;

int64_t below(Bits& bits, int64_t n) {
  return static_cast<int64_t>(bits() % static_cast<uint64_t>(n));
}
template <std::size_t N>
std::string pick(Bits& bits, const std::array<std::string_view, N>& from) {
  return std::string(from[bits() % N]);
}

constexpr std::array<std::string_view, 12> kNames = {"Amira", "Bruno",   "Chen",  "Dagny",
                                                     "Elias", "Fatima",  "Goran", "Hana",
                                                     "Ivo",   "Jolanda", "Kofi",  "Leila"};
constexpr std::array<std::string_view, 12> kThings = {"lemons",  "books",   "postcards", "candles",
                                                      "shells",  "buttons", "stamps",    "bricks",
                                                      "tickets", "walnuts", "keys",      "pencils"};
constexpr std::array<std::string_view, 10> kPlaces = {
    "the station",     "a quiet village", "the market hall",  "the north pier", "an old mill",
    "the school yard", "the valley",      "a crowded square", "the workshop",   "the river bank"};
constexpr std::array<std::string_view, 10> kActs = {
    "repaired the clock", "counted the boxes",    "painted a fence",  "waited for the bus",
    "read the newspaper", "planted three trees",  "lost an umbrella", "wrote a long letter",
    "bought warm bread",  "missed the last train"};

CorpusDocument sum_drill(Bits& bits) {
  const int64_t a = 12 + below(bits, 480), b = 3 + below(bits, 60), price = 2 + below(bits, 9);
  const std::string who = pick(bits, kNames), what = pick(bits, kThings);
  const auto n = [](int64_t v) { return std::to_string(v); };
  return {
      {},
      {{"user", who + " has " + n(a) + " " + what + " and buys " + n(b) + " more at " + n(price) +
                    " euros each. How many are there now, and what did the new ones cost?"},
       {"assistant", "There are now " + n(a) + " + " + n(b) + " = " + n(a + b) + " " + what +
                         ". The new ones cost " + n(b) + " * " + n(price) + " = " + n(b * price) +
                         " euros."}}};
}

CorpusDocument story_drill(Bits& bits) {
  std::string text;
  for (int day = 0; day < 5; ++day) {
    constexpr std::array<std::string_view, 5> kDays = {"On Monday", "The next day", "On Wednesday",
                                                       "A day later", "By the end of the week"};
    text += std::string(kDays[static_cast<std::size_t>(day)]) + ", " + pick(bits, kNames) + " " +
            pick(bits, kActs) + " near " + pick(bits, kPlaces) + ", and " + pick(bits, kNames) +
            " brought " + std::to_string(2 + below(bits, 30)) + " " + pick(bits, kThings) + ". ";
  }
  return {text, {}};
}

CorpusDocument table_drill(Bits& bits) {
  std::string text = "| name | item | count | price | date |\n|---|---|---|---|---|\n";
  for (int row = 0; row < 4; ++row)
    text += "| " + pick(bits, kNames) + " | " + pick(bits, kThings) + " | " +
            std::to_string(1 + below(bits, 99)) + " | " + std::to_string(below(bits, 50)) + "." +
            std::to_string(10 + below(bits, 90)) + " | 20" + std::to_string(10 + below(bits, 16)) +
            "-0" + std::to_string(1 + below(bits, 9)) + "-" + std::to_string(10 + below(bits, 19)) +
            " |\n";
  return {text, {}};
}

CorpusDocument code_drill(Bits& bits) {
  const std::string what = pick(bits, kThings), limit = std::to_string(5 + below(bits, 95));
  return {"def count_" + what +
              "(shelf):\n    total = 0\n    for box in shelf:\n        if box[\"" + what +
              "\"] > " + limit + ":\n            total += box[\"" + what +
              "\"]\n    return total\n\n\nassert count_" + what + "([{\"" + what + "\": " + limit +
              "}]) == 0\n",
          {}};
}

}  // namespace

std::vector<CorpusDocument> default_corpus(uint64_t seed, int64_t drills) {
  std::vector<CorpusDocument> written, generated;
  for (const std::string_view text : kProse) written.push_back({std::string(text), {}});
  for (const std::string_view text : kNotes) written.push_back({std::string(text), {}});
  for (const Exchange& chat : kChats)
    written.push_back(
        {{}, {{"user", std::string(chat.question)}, {"assistant", std::string(chat.answer)}}});
  Bits bits(seed);
  constexpr std::array kDrills = {sum_drill, story_drill, table_drill, code_drill};
  for (int64_t i = 0; i < drills; ++i)
    generated.push_back(kDrills[static_cast<std::size_t>(i) % kDrills.size()](bits));
  for (std::size_t i = written.size(); i > 1; --i) std::swap(written[i - 1], written[bits() % i]);
  // What was written comes first: short runs see little else.
  std::move(generated.begin(), generated.end(), std::back_inserter(written));
  return written;
}

}  // namespace crumb::quant
