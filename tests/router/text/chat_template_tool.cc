// Renders chat templates for the differential test: one JSON object a line on stdin,
// {"template", "context", "now"}, one a line on stdout, {"text"} or {"error"}.
#include <boost/json.hpp>
#include <iostream>
#include <string>

#include "router/text/chat_template.h"

namespace {

boost::json::object Rendered(const boost::json::object& request) {
  const boost::json::string& source = request.at("template").as_string();
  auto chat_template =
      longhaul::ChatTemplate::Parse(absl::string_view(source.data(), source.size()));
  if (!chat_template.ok()) return {{"error", std::string(chat_template.status().message())}};
  auto text =
      (*chat_template)
          ->Render(request.at("context").as_object(), request.at("now").to_number<int64_t>());
  if (!text.ok()) return {{"error", std::string(text.status().message())}};
  return {{"text", *text}};
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::cout << Rendered(boost::json::parse(line).as_object()) << std::endl;
  }
  return 0;
}
