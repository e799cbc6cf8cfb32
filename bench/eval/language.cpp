#include "bench/eval/language.h"

#include <algorithm>
#include <array>
#include <unordered_set>
#include <vector>

namespace crumb::eval {
namespace {

enum class Script : uint8_t {
  kLatin,
  kCyrillic,
  kArabic,
  kDevanagari,
  kBengali,
  kGurmukhi,
  kGujarati,
  kTamil,
  kTelugu,
  kKannada,
  kMalayalam,
  kThai,
  kHebrew,
  kGreek,
  kHangul,
  kKana,
  kHan,
};
constexpr std::size_t kScripts = static_cast<std::size_t>(Script::kHan) + 1;

struct ScriptRange {
  char32_t first, last;
  Script script;
};
constexpr ScriptRange kRanges[] = {
    {0x41, 0x5A, Script::kLatin},        {0x61, 0x7A, Script::kLatin},
    {0xC0, 0x24F, Script::kLatin},       {0x1E00, 0x1EFF, Script::kLatin},
    {0x370, 0x3FF, Script::kGreek},      {0x400, 0x52F, Script::kCyrillic},
    {0x590, 0x5FF, Script::kHebrew},     {0x600, 0x6FF, Script::kArabic},
    {0x750, 0x77F, Script::kArabic},     {0xFB50, 0xFEFC, Script::kArabic},
    {0x900, 0x97F, Script::kDevanagari}, {0x980, 0x9FF, Script::kBengali},
    {0xA00, 0xA7F, Script::kGurmukhi},   {0xA80, 0xAFF, Script::kGujarati},
    {0xB80, 0xBFF, Script::kTamil},      {0xC00, 0xC7F, Script::kTelugu},
    {0xC80, 0xCFF, Script::kKannada},    {0xD00, 0xD7F, Script::kMalayalam},
    {0xE00, 0xE7F, Script::kThai},       {0x3040, 0x30FF, Script::kKana},
    {0x3400, 0x9FFF, Script::kHan},      {0xAC00, 0xD7AF, Script::kHangul},
};

// What speaks for a language among those of its script: words, and letters.
struct Signs {
  std::string_view language;
  Script script;
  TextView words;    // in lower case, with spaces between
  TextView letters;  // each counts like a word; lower case
};
constexpr Signs kSigns[] = {
    {"en", Script::kLatin,
     U"a i do no so me go all the and of to in is that it for on you with as are this be at have "
     U"from or by not your "
     U"what "
     U"which will can an was we they has their but if our i my he she his her its more when there",
     U""},
    {"es", Script::kLatin,
     U"el la los las de que y en un una por con para es se del al lo como más su sus está son pero "
     U"muy este esta",
     U"ñ¿¡"},
    {"pt", Script::kLatin,
     U"o os as de que e em um uma por com para é se do da dos das no na não mais como você seu sua "
     U"são ao também",
     U"ãõ"},
    {"fr", Script::kLatin,
     U"le la les de des et en un une du que qui est pour dans par sur avec pas plus ce cette il "
     U"elle "
     U"nous vous sont au aux je",
     U"œ"},
    {"de", Script::kLatin,
     U"der die das und ist ein eine zu den von mit dem nicht für auf im sich des auch es sie ich "
     U"wir "
     U"werden als oder sind",
     U"ß"},
    {"it", Script::kLatin,
     U"il lo la gli di che è un una per con del della non sono più come si nel alla dei delle "
     U"anche "
     U"ma questo e i",
     U""},
    {"nl", Script::kLatin,
     U"de het een en van is dat op te zijn voor met niet aan er om ook als maar bij deze je wij",
     U""},
    {"pl", Script::kLatin,
     U"i w na z do się nie to jest że o jak po za od dla są przez lub ale jego może być które",
     U"ąęłńśźż"},
    {"cs", Script::kLatin, U"je se na že z jako pro ve by jsou ale být jeho které", U"ěřů"},
    {"ro", Script::kLatin, U"și de la în un o cu pe pentru este care nu din mai sau să sunt acest",
     U"ășțţş"},
    {"hu", Script::kLatin, U"az és hogy nem is egy van meg csak ez mint de vagy volt", U"őű"},
    {"tr", Script::kLatin, U"ve bir bu için ile da de çok olarak daha gibi olan ne ama kadar",
     U"ğış"},
    {"sv", Script::kLatin, U"och att det i en är som på för av med den till inte ett om har kan",
     U"å"},
    {"da", Script::kLatin, U"og at det i en er som på for af med den til ikke et om har kan de",
     U"æø"},
    {"fi", Script::kLatin,
     U"ja on ei se että oli hän mutta kun niin ovat joka myös tai voi kuin jos ole tämä sen", U""},
    {"id", Script::kLatin, U"yang dan di dengan untuk dari ini itu pada adalah tidak dalam akan ke",
     U""},
    {"sw", Script::kLatin,
     U"na ya wa kwa ni katika za la kuwa cha hii kama au yake si pia hiyo hili mimi wewe kwamba",
     U""},
    {"vi", Script::kLatin,
     U"và của là có không được cho một các những trong với người này đã để bạn tôi khi như",
     U"đơư"},
    {"tl", Script::kLatin, U"ang ng sa mga na ay at ito para siya hindi kung may ko ka", U""},
    {"ru", Script::kCyrillic, U"и в не на что я с он как это по но они мы к у из за для от",
     U"ыэё"},
    {"bg", Script::kCyrillic, U"и на да се в за не от е че са си по като ще това с което", U""},
    {"uk", Script::kCyrillic, U"і в не на що я з він як це та до у але для від", U"іїєґ"},
    {"mk", Script::kCyrillic, U"и на да се во за не од е дека со што ќе", U"ѓќѕј"},
    {"ar", Script::kArabic, U"في من على إلى أن هذا هذه التي الذي عن مع كان لا ما هو", U"ةىأإ"},
    {"fa", Script::kArabic, U"و در به از که این است را با برای آن یک می های خود", U"پچژ"},
    {"ur", Script::kArabic, U"کے میں کی ہے اور سے کو کا ہیں نے پر یہ کہ بھی", U"ٹڈڑےںھہ"},
    {"hi", Script::kDevanagari, U"है के में की और से का को हैं पर एक यह भी नहीं ने कि", U"\u095C"},
    {"mr", Script::kDevanagari, U"आहे आणि या आहेत च्या मध्ये नाही हे ते एक व की होते", U"ळ"},
    {"ne", Script::kDevanagari, U"छ र को मा छन् गर्न हो यो पनि एक लागि भने हरू तथा गरेको", U""},
};

struct Only {
  Script script;
  std::string_view language;
};
constexpr Only kOnly[] = {
    {Script::kBengali, "bn"},   {Script::kGurmukhi, "pa"}, {Script::kGujarati, "gu"},
    {Script::kTamil, "ta"},     {Script::kTelugu, "te"},   {Script::kKannada, "kn"},
    {Script::kMalayalam, "ml"}, {Script::kThai, "th"},     {Script::kHebrew, "he"},
    {Script::kGreek, "el"},     {Script::kHangul, "ko"},   {Script::kKana, "ja"},
    {Script::kHan, "zh-cn"},
};

const ScriptRange* range_of(char32_t c) {
  for (const auto& range : kRanges)
    if (c >= range.first && c <= range.last) return &range;
  return nullptr;
}

// Letters of a script with its vowel signs: what one language's words are made of.
bool is_part_of_word(char32_t c) { return is_word(c) || range_of(c) != nullptr; }

Text without_links(TextView text) {
  Text out;
  for (std::size_t i = 0; i < text.size();) {
    const TextView rest = text.substr(i);
    if (!rest.starts_with(U"http://") && !rest.starts_with(U"https://")) {
      out += text[i++];
      continue;
    }
    while (i < text.size() && text[i] < 0x80 && !is_space(text[i])) ++i;
  }
  return out;
}

std::string_view by_signs(TextView text, Script script, std::string_view otherwise) {
  const Text small = lower(text);
  std::string_view best = otherwise;
  double most = 0;
  for (const Signs& signs : kSigns) {
    if (signs.script != script) continue;
    const auto list = split_space(signs.words);
    const std::unordered_set<TextView> known(list.begin(), list.end());
    double score = 0;
    for (std::size_t i = 0; i < small.size();) {
      std::size_t end = i;
      while (end < small.size() && is_part_of_word(small[end])) {
        score += signs.letters.find(small[end]) != TextView::npos ? 1 : 0;
        ++end;
      }
      if (end > i && known.contains(TextView(small).substr(i, end - i))) score += 1;
      i = std::max(end, i + 1);
    }
    if (score > most) {
      most = score;
      best = signs.language;
    }
  }
  return best;
}

}  // namespace

std::string_view detect_language(TextView text) {
  const Text cleaned = without_links(text);
  std::array<int64_t, kScripts> letters{};
  for (const char32_t c : cleaned)
    if (const ScriptRange* range = range_of(c)) ++letters[static_cast<std::size_t>(range->script)];
  // Japanese writes kana among Han characters.
  auto& kana = letters[static_cast<std::size_t>(Script::kKana)];
  if (kana > 0) kana += letters[static_cast<std::size_t>(Script::kHan)];
  const auto most = std::max_element(letters.begin(), letters.end());
  if (*most == 0) return kNoLanguage;
  const auto script = static_cast<Script>(most - letters.begin());
  for (const Only& only : kOnly)
    if (only.script == script) return only.language;
  // Too short to be told apart where no word is known: langdetect's verdict would be a guess.
  constexpr int64_t kTelling = 30;
  if (script == Script::kLatin) return by_signs(cleaned, script, *most < kTelling ? "" : "en");
  const auto otherwise = std::find_if(std::begin(kSigns), std::end(kSigns),
                                      [script](const Signs& one) { return one.script == script; });
  return by_signs(cleaned, script, otherwise->language);
}

}  // namespace crumb::eval
