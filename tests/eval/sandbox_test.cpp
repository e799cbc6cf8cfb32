#include "bench/eval/sandbox.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temp_dir.h"

namespace crumb::eval {
namespace {

class Sandbox : public testing::Test {
 protected:
  void SetUp() override {
    const std::string lack = sandbox_missing();
    if (!lack.empty()) GTEST_SKIP() << "no sandbox here: " << lack;
  }
};

// The statement raises `error`: the sandbox refused it. That it works outside is each test's own
// proof where it matters.
std::string must_raise(const std::string& statement, const std::string& error) {
  std::string body = "import os, sys, socket\ntry:\n";
  body += "    " + statement + "\n";
  return body + "except " + error + ":\n    sys.exit(0)\nsys.exit(3)\n";
}

TEST_F(Sandbox, ProgramsPassAndFail) {
  EXPECT_EQ(run_python("assert sum([1, 2, 3]) == 6"), ProgramEnd::kPassed);
  EXPECT_EQ(run_python("assert sum([1, 2, 3]) == 7"), ProgramEnd::kFailed);
  EXPECT_EQ(run_python("def f(:"), ProgramEnd::kFailed);
  EXPECT_EQ(run_python("import os; os.kill(os.getpid(), 11)"), ProgramEnd::kFailed);
  EXPECT_EQ(run_python(std::string("x = 1\0", 6)), ProgramEnd::kFailed);
  EXPECT_EQ(run_python(std::string(200'000, '#')), ProgramEnd::kFailed);
}

TEST_F(Sandbox, TheStandardLibraryIsThere) {
  EXPECT_EQ(run_python("import math, re, collections, itertools, heapq, typing, hashlib, random\n"
                       "assert math.isclose(math.pi, 3.14159, rel_tol=1e-5)\n"
                       "assert hashlib.md5(b'a').hexdigest().startswith('0cc1')"),
            ProgramEnd::kPassed);
}

TEST_F(Sandbox, HashesOfStringsAreTheSameEveryTime) {
  const std::string program = "import sys\nsys.exit(0 if hash('crumb') % 7 == ";
  int passed = 0;
  for (int rest = 0; rest < 7; ++rest)
    for (int turn = 0; turn < 2; ++turn)
      passed += run_python(program + std::to_string(rest) + " else 1)") == ProgramEnd::kPassed;
  EXPECT_EQ(passed, 2);
}

TEST_F(Sandbox, NoFileIsWrittenOrReadOutsideTheSystem) {
  const test::TempDir folder;
  const std::string secret = folder.file("secret"), fresh = folder.file("fresh");
  std::ofstream(secret) << "42";
  EXPECT_EQ(run_python(must_raise("open('" + secret + "')", "PermissionError")),
            ProgramEnd::kPassed);
  EXPECT_EQ(run_python(must_raise("open('" + fresh + "', 'w')", "PermissionError")),
            ProgramEnd::kPassed);
  EXPECT_FALSE(std::filesystem::exists(fresh));
  for (const std::string& statement :
       {"os.remove('" + secret + "')", "os.rename('" + secret + "', '" + fresh + "')",
        "os.truncate('" + secret + "', 0)", "os.chmod('" + secret + "', 0)",
        "os.utime('" + secret + "', (1, 1))", "os.mkdir('" + fresh + "')",
        "os.symlink('/etc', '" + fresh + "')", "os.link('" + secret + "', '" + fresh + "')",
        "os.listdir('" + folder.dir().string() + "')", std::string("os.listdir('/')"),
        std::string("open('/etc/passwd')"), std::string("open('/proc/self/environ')"),
        std::string("open('/tmp/crumb-sandbox-test', 'w')"),
        std::string("open('/usr/bin/crumb-sandbox-test', 'w')"),
        std::string("open('/dev/shm/crumb-sandbox-test', 'w')")})
    EXPECT_EQ(run_python(must_raise(statement, "PermissionError")), ProgramEnd::kPassed)
        << statement;
  std::string text;
  std::ifstream(secret) >> text;
  EXPECT_EQ(text, "42");
}

TEST_F(Sandbox, TheParentsDescriptorsAreClosed) {
  const test::TempDir folder;
  const std::string path = folder.file("open");
  std::ofstream(path) << "secret";
  const int fd = ::open(path.c_str(), O_RDWR);  // not close-on-exec
  ASSERT_GE(fd, 3);
  EXPECT_EQ(run_python(must_raise("os.read(" + std::to_string(fd) + ", 1)", "OSError")),
            ProgramEnd::kPassed);
  ::close(fd);
}

TEST_F(Sandbox, NoNetwork) {
  // A listener of ours that a connection would reach.
  const int listener = ::socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_GE(listener, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener, 1), 0);
  ASSERT_EQ(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string port = std::to_string(ntohs(address.sin_port));
  EXPECT_EQ(run_python(must_raise("socket.create_connection(('127.0.0.1', " + port + "), 2)",
                                  "PermissionError")),
            ProgramEnd::kPassed);
  for (const char* statement :
       {"socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "socket.socket(socket.AF_UNIX)",
        "socket.socketpair()", "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"})
    EXPECT_EQ(run_python(must_raise(statement, "PermissionError")), ProgramEnd::kPassed)
        << statement;
  ::close(listener);
}

TEST_F(Sandbox, NoProcessesAndNoSignalsToOthers) {
  for (const std::string& statement :
       {std::string("os.fork()"), std::string("__import__('subprocess').run(['/usr/bin/true'])"),
        "os.kill(" + std::to_string(getpid()) + ", 0)", std::string("os.kill(-1, 0)"),
        std::string("os.setsid()"), std::string("os.memfd_create('x')")})
    EXPECT_EQ(run_python(must_raise(statement, "PermissionError")), ProgramEnd::kPassed)
        << statement;
  EXPECT_EQ(run_python("import threading\nt = threading.Thread(target=lambda: None)\n"
                       "t.start()\nt.join()"),
            ProgramEnd::kPassed);
}

TEST_F(Sandbox, TimeAndMemoryEnd) {
  SandboxLimits limits;
  limits.wall = std::chrono::milliseconds(300);
  EXPECT_EQ(run_python("while True: pass", limits), ProgramEnd::kTimedOut);
  EXPECT_EQ(run_python("import time; time.sleep(60)", limits), ProgramEnd::kTimedOut);
  EXPECT_EQ(run_python("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
                       "time.sleep(60)",
                       limits),
            ProgramEnd::kTimedOut);
  EXPECT_EQ(run_python("x = bytearray(4 << 30)"), ProgramEnd::kFailed);
  // More output than a pipe holds is read and forgotten.
  EXPECT_EQ(run_python("print('x' * 5_000_000)"), ProgramEnd::kPassed);
}

}  // namespace
}  // namespace crumb::eval
