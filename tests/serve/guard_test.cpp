#include "apps/serve/guard.h"

#include <gtest/gtest.h>

#include "apps/serve/api_error.h"
#include "models/errors.h"

namespace crumb::serve {
namespace {

int status_of(const std::function<void()>& check) {
  try {
    check();
    return 200;
  } catch (const ApiError& error) {
    return error.status;
  }
}

HttpRequest with(HttpFields fields) {
  HttpRequest request;
  request.fields = std::move(fields);
  return request;
}

TEST(Guard, Hosts) {
  const Guard guard({{"pi.local"}, {}, {}});
  const auto host = [&](const std::string& name) {
    return status_of([&] { guard.check_source(with({{"host", name}})); });
  };
  for (const char* name : {"localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]",
                           "pi.local", "Pi.Local:80", "localhost:"})
    EXPECT_EQ(host(name), 200) << name;
  for (const char* name : {"evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                           "localhost.", "10.0.0.1", "[::2]:80"})
    EXPECT_EQ(host(name), 403) << name;
  for (const char* name :
       {"", ":80", "localhost:80:90", "[::1", "[::1]x", "localhost:8o80", "localhost:123456"})
    EXPECT_EQ(host(name), 400) << name;
  EXPECT_EQ(status_of([&] { guard.check_source(with({})); }), 200) << "HTTP/1.0";
}

TEST(Guard, Origins) {
  const Guard guard({{}, {}, {"https://app.example"}});
  const auto origin = [&](const std::string& name) {
    const auto request = with({{"host", "localhost:8080"}, {"origin", name}});
    const int status = status_of([&] { guard.check_source(request); });
    const HttpFields cors = guard.cors(request);
    // Only an origin that was named may read the answer.
    if (name == "https://app.example") {
      EXPECT_EQ(cors.front().second, name);
    } else {
      EXPECT_TRUE(cors.empty());
    }
    return status;
  };
  EXPECT_EQ(origin("https://app.example"), 200);
  EXPECT_EQ(origin("http://localhost:8080"), 200) << "our own page";
  for (const char* name : {"http://localhost:8081", "https://localhost:8080", "null",
                           "https://evil.example", "https://app.example.evil.example", ""})
    EXPECT_EQ(origin(name), 403) << name;
}

TEST(Guard, Keys) {
  const Guard guard({{}, {"first-key-1", "second-key-2"}, {}});
  const auto given = [&](HttpFields fields) {
    return status_of([&] { guard.check_key(with(std::move(fields))); });
  };
  EXPECT_EQ(given({{"authorization", "Bearer first-key-1"}}), 200);
  EXPECT_EQ(given({{"authorization", "bearer second-key-2"}}), 200);
  EXPECT_EQ(given({{"authorization", "BEARER   second-key-2 "}}), 200);
  EXPECT_EQ(given({{"x-api-key", "second-key-2"}}), 200);
  for (const char* wrong : {"Bearer first-key-", "Bearer first-key-12", "Bearer ", "first-key-1",
                            "Basic first-key-1", "Bearerfirst-key-1"})
    EXPECT_EQ(given({{"authorization", wrong}}), 401) << wrong;
  EXPECT_EQ(given({{"authorization", "Bearer " + std::string(1 << 20, 'k')}}), 401);
  EXPECT_EQ(given({}), 401);
  EXPECT_EQ(status_of([] { Guard({}).check_key({}); }), 200) << "no key, none needed";
}

TEST(Guard, SameKeyIsEquality) {
  const std::string key(kMaxKeyBytes, 'k');
  EXPECT_TRUE(same_key(key, key));
  EXPECT_FALSE(same_key(key + "k", key + "k")) << "no key is that long";
  EXPECT_FALSE(same_key(key.substr(1), key));
  for (const std::size_t at : {std::size_t{0}, key.size() / 2, key.size() - 1}) {
    std::string other = key;
    other[at] = 'x';
    EXPECT_FALSE(same_key(other, key));
  }
  EXPECT_FALSE(same_key(std::string("abcdefgh\0", 9), "abcdefgh")) << "padding is no part of a key";
}

TEST(Guard, KeyFiles) {
  EXPECT_EQ(keys_of("# ours\n\n  key-number-1 \r\nkey-number-2", "f"),
            (std::vector<std::string>{"key-number-1", "key-number-2"}));
  for (const std::string& bad : std::vector<std::string>{
           "", "# nothing\n", "short", "has a blank", "caf\xC3\xA9-key", std::string(257, 'k')}) {
    try {
      keys_of(bad, "keys.txt");
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kUsage);
      EXPECT_EQ(std::string(error.what()).find("blank"), std::string::npos) << "a key is a secret";
    }
  }
}

TEST(Guard, JsonOnly) {
  const auto type = [](const char* text) {
    return status_of([&] { Guard::check_json(with({{"content-type", text}})); });
  };
  EXPECT_EQ(type("application/json"), 200);
  EXPECT_EQ(type("Application/JSON; charset=utf-8"), 200);
  for (const char* other : {"text/plain", "application/x-www-form-urlencoded", "",
                            "application/jsonx", "multipart/form-data; boundary=application/json"})
    EXPECT_EQ(type(other), 415) << other;
  EXPECT_EQ(status_of([] { Guard::check_json({}); }), 415);
}

}  // namespace
}  // namespace crumb::serve
