// Runs the parser of path reports outside of Node, built with AddressSanitizer and UndefinedBehaviorSanitizer; each message lies in an allocation of
// exactly its size, so that reading one byte too far is an error.
//
//   path_report_tool < lines "4|6 HEX"   -> "word word ..." or "none" for each line
//
// test/native/path-report.test.ts says what is right.
#include <cstdio>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>

#include "../path_report.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream fields(line);
    std::string family, hex;
    fields >> family >> hex;
    const size_t size = hex.size() / 2;
    // new[] of the exact size: a std::vector's spare capacity would hide an over-read.
    const std::unique_ptr<uint8_t[]> message(new uint8_t[size]);
    for (size_t i = 0; i < size; i++) message[i] = static_cast<uint8_t>(std::stoi(hex.substr(2 * i, 2), nullptr, 16));
    int32_t report[faketcp::REPORT_WORDS] = {};
    if (!faketcp::ParsePathReport(family == "6", message.get(), size, report)) {
      printf("none\n");
      continue;
    }
    for (const int32_t word : report) printf("%d ", word);
    printf("\n");
  }
  return 0;
}
