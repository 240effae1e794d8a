#include "router/text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace longhaul {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kNowS = 1'700'000'000;

std::string Rendered(absl::string_view source, absl::string_view context = "{}") {
  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return std::string(parsed.status().message());
  const boost::json::value variables = boost::json::parse(std::string(context));
  absl::StatusOr<std::string> text = (*parsed)->Render(variables.as_object(), kNowS);
  return text.ok() ? *text : std::string(text.status().message());
}

constexpr char kConversation[] = R"({"messages":[{"role":"system","content":" Be kind. "},
    {"role":"user","content":"Grüße 😀"}],"add_generation_prompt":true,"bos_token":"<s>"})";

TEST(ChatTemplateTest, WritesAConversation) {
  const char* source = R"({{ bos_token }}{% for message in messages %}
    {% if message.role == 'system' %}
[{{ message['content'] | trim }}]
    {% else %}
<{{ message.role }}>{{ message.content }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}<assistant>{% endif %})";
  EXPECT_EQ(Rendered(source, kConversation), "<s>[Be kind.]\n<user>Grüße 😀\n<assistant>");
}

TEST(ChatTemplateTest, IsReusableAndChangesNothing) {
  auto parsed = ChatTemplate::Parse(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
      "{{ ns.n }}");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const boost::json::value context = boost::json::parse(kConversation);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ((*parsed)->Render(context.as_object(), kNowS).value(), "2");
  }
}

TEST(ChatTemplateTest, TellsTheTimeItIsHanded) {
  EXPECT_EQ(Rendered("{{ strftime_now('%d %b %Y') }}"), "14 Nov 2023");
  EXPECT_THAT(Rendered("{{ strftime_now('%999999999Y') }}"), HasSubstr("does not know"));
}

TEST(ChatTemplateTest, ARefusalCarriesTheTemplatesWords) {
  EXPECT_EQ(Rendered("a\n{{ raise_exception('roles must alternate') }}"),
            "chat template, line 2: the template refuses these messages: roles must alternate");
}

TEST(ChatTemplateTest, MessagesCannotBeChanged) {
  EXPECT_THAT(Rendered("{{ messages.append(1) }}", kConversation), HasSubstr("unsafe"));
  EXPECT_THAT(Rendered("{{ messages[0].update({}) }}", kConversation), HasSubstr("unsafe"));
  EXPECT_THAT(Rendered("{{ messages.__class__.__mro__ }}", kConversation),
              HasSubstr("has no attribute '__class__'"));
}

TEST(ChatTemplateTest, ParseErrorsNameTheLine) {
  EXPECT_EQ(Rendered("a\nb {{ x"), "chat template, line 2: a tag has no '}}'");
  EXPECT_THAT(Rendered("\n\n{% if x %}"), HasSubstr("line 3: expected 'endif', got the end"));
  EXPECT_THAT(Rendered("{% include 'x' %}"), HasSubstr("the tag 'include' is not supported"));
  EXPECT_THAT(Rendered("{% endfor %}"), HasSubstr("the tag 'endfor' is not supported"));
  EXPECT_THAT(Rendered("{{ 1 + }}"), HasSubstr("expected an expression, got '}}'"));
  EXPECT_THAT(Rendered("{{ (1 }}"), HasSubstr("unexpected '}'"));
  EXPECT_THAT(Rendered("{{ 'abc }}"), HasSubstr("a string has no end"));
  EXPECT_THAT(Rendered("{# abc"), HasSubstr("a comment has no end"));
  EXPECT_THAT(Rendered("{% break %}"), HasSubstr("outside of a loop"));
  EXPECT_THAT(Rendered("{{ f(*x) }}"), HasSubstr("not supported"));
  EXPECT_THAT(Rendered("{{ 99999999999999999999 }}"), HasSubstr("does not fit 64 bits"));
}

TEST(ChatTemplateTest, RuntimeErrorsSayWhatWasWrong) {
  EXPECT_EQ(Rendered("{{ nope.x }}"), "chat template, line 1: 'nope' is undefined");
  EXPECT_THAT(Rendered("{{ 'a' + 1 }}"), HasSubstr("can only concatenate str (not \"int\")"));
  EXPECT_THAT(Rendered("{{ 1 / 0 }}"), HasSubstr("division by zero"));
  EXPECT_THAT(Rendered("{{ 9223372036854775807 + 1 }}"), HasSubstr("does not fit 64 bits"));
  EXPECT_THAT(Rendered("{{ (0 - 9223372036854775807 - 1) // -1 }}"), HasSubstr("64 bits"));
  EXPECT_EQ(Rendered("{{ (0 - 9223372036854775807 - 1) % -1 }}"), "0");
  EXPECT_THAT(Rendered("{{ 'x' | nothing }}"), HasSubstr("no filter is named 'nothing'"));
  EXPECT_THAT(Rendered("{{ trim('x') }}"), HasSubstr("'trim' is undefined"));
}

}  // namespace
}  // namespace longhaul
