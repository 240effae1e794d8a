// Templates that mean harm: each must end soon, with a clear error, on a thread's ordinary stack.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "router/text/chat_template.h"

namespace longhaul {
namespace {

using ::testing::HasSubstr;

std::string Repeated(absl::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) absl::StrAppend(&all, text);
  return all;
}

// The error, or "" when the template rendered.
std::string Error(absl::string_view source) {
  absl::StatusOr<std::unique_ptr<ChatTemplate>> parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return std::string(parsed.status().message());
  const boost::json::object context = {{"messages", {{{"role", "user"}, {"content", "a <b> ü"}}}},
                                       {"flag", true}};
  return std::string((*parsed)->Render(context, 0).status().message());
}

TEST(ChatTemplateHostileTest, SizeIsBounded) {
  EXPECT_THAT(Error(std::string(ChatTemplate::kTemplateBytesMax + 1, 'x')),
              HasSubstr("1048577 bytes, the limit is 1048576"));
}

TEST(ChatTemplateHostileTest, NestingIsBounded) {
  constexpr int kMany = 50000;
  auto wrapped = [&](absl::string_view open, absl::string_view close) {
    return absl::StrCat("{{ ", Repeated(open, kMany), "1", Repeated(close, kMany), " }}");
  };
  EXPECT_THAT(Error(wrapped("(", ")")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error(wrapped("[", "]")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error(wrapped("{1:", "}")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error(wrapped("f(", ")")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error(wrapped("a[", "]")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error(wrapped("0 or(", ")")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error(wrapped("1|f(", ")")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error(wrapped("1 is f(", ")")), HasSubstr("nest deeper"));
  EXPECT_THAT(Error("{{ " + std::string(kMany, '-') + "1 }}"), HasSubstr("deeper than"));
  EXPECT_THAT(Error("{{ " + Repeated("not ", kMany) + "1 }}"), HasSubstr("deeper than"));
  EXPECT_THAT(Error("{{ 1" + Repeated(" + 1", kMany) + " }}"), HasSubstr("deeper than"));
  EXPECT_THAT(Error("{{ x" + Repeated(".x", kMany) + " }}"), HasSubstr("deeper than"));
  EXPECT_THAT(Error("{{ x" + Repeated("|trim", kMany) + " }}"), HasSubstr("deeper than"));
  EXPECT_THAT(Error("{{ x" + Repeated(" is string", kMany) + " }}"), HasSubstr("chained"));
  EXPECT_THAT(Error(Repeated("{% if 1 %}", kMany)), HasSubstr("nest deeper"));
  EXPECT_THAT(
      Error(absl::StrCat("{% set ", Repeated("(", kMany), "a", Repeated(")", kMany), " = 1 %}")),
      HasSubstr("nests too deep"));
  EXPECT_THAT(Error("{{ " + Repeated("1 if 1 else ", 10000) + "1 }}"), HasSubstr("nest deeper"));
}

TEST(ChatTemplateHostileTest, RecursionIsBounded) {
  EXPECT_THAT(Error("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("nested deeper"));
  EXPECT_THAT(Error("{% macro f(x) %}{{ f([x]) }}{% endmacro %}{{ f(1) }}"), HasSubstr("deeper"));
  EXPECT_THAT(Error("{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}"
                    "{{ f() }}"),
              HasSubstr("nested deeper"));
}

TEST(ChatTemplateHostileTest, TimeIsBounded) {
  const std::string loop = "{% for a in range(100000) %}";
  EXPECT_THAT(Error(loop + loop + "{% endfor %}{% endfor %}"), HasSubstr("steps"));
  EXPECT_THAT(Error("{{ range(9999999999) }}"), HasSubstr("limited to 100000"));
  EXPECT_THAT(Error("{{ range(0, 9223372036854775807, 9223372036854775807)|length }}"), "");
  EXPECT_THAT(Error(loop + "{{ ([0] * 1000000) | length }}{% endfor %}"), HasSubstr("steps"));
  EXPECT_THAT(Error("{% set x = range(100000) %}" + loop + "{{ a in x }}{% endfor %}"),
              HasSubstr("steps"));
}

TEST(ChatTemplateHostileTest, ManyVariablesCostTheirTime) {
  std::string source;
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&source, "{% set v", i, " = 1 %}");
  absl::StrAppend(&source, "{% for i in range(100000) %}{{ nobody }}{% endfor %}");
  EXPECT_THAT(Error(source), HasSubstr("steps"));
}

TEST(ChatTemplateHostileTest, MemoryIsBounded) {
  EXPECT_THAT(Error("{{ ('%s' * 1000) % (('x' * 1000000,) * 1000) }}"), HasSubstr("bytes of text"));
  EXPECT_THAT(Error("{{ ('{}' * 1000).format('x' * 1000000) }}"), HasSubstr("no argument"));
  EXPECT_THAT(Error("{{ ('{0}' * 10000).format('x' * 1000000) }}"), HasSubstr("bytes of text"));
  EXPECT_THAT(Error("{{ 'x' * 9223372036854775807 }}"), HasSubstr("too long"));
  EXPECT_THAT(Error("{{ [1] * 9223372036854775807 }}"), HasSubstr("too long"));
  EXPECT_THAT(Error("{% set ns = namespace(x='aaaaaaaa') %}{% for i in range(100) %}"
                    "{% set ns.x = ns.x ~ ns.x %}{% endfor %}"),
              HasSubstr("bytes of text"));
  EXPECT_THAT(Error("{% set s = 'x' * 1000000 %}{% for i in range(1000) %}{{ s }}{% endfor %}"),
              HasSubstr("output is longer"));
  EXPECT_THAT(Error("{% set s = ['x' * 1000000] * 100 %}{{ s }}"), HasSubstr("longer than"));
  EXPECT_THAT(Error("{% set s = ['x' * 1000000] * 100 %}{{ s | tojson }}"),
              HasSubstr("makes more than"));
  EXPECT_THAT(Error("{% set s = ['x' * 1000000] * 1000 %}{{ s | join }}"), HasSubstr("bytes"));
  EXPECT_THAT(Error("{{ ('x' * 100000).replace('', 'y' * 100000) }}"), HasSubstr("bytes of text"));
  EXPECT_THAT(Error("{{ 'x' | center(99999999999) }}"), HasSubstr("up to 10000"));
  EXPECT_THAT(Error("{{ 'x' | indent(99999999999) }}"), HasSubstr("up to 1000"));
  EXPECT_THAT(Error("{{ '%.999999999f' % 1.5 }}"), HasSubstr("precision"));
  EXPECT_THAT(Error("{{ [1] | batch(999999999, 0) | list }}"), HasSubstr("from 1 to 1000000"));
}

// Destroying a value that holds a value that holds ... takes stack too.
TEST(ChatTemplateHostileTest, DeepAndCyclicValuesAreBounded) {
  const std::string head = "{% set ns = namespace(x=1) %}{% for i in range(100000) %}";
  EXPECT_THAT(Error(head + "{% set ns.x = [ns.x] %}{% endfor %}"), HasSubstr("nested deeper"));
  EXPECT_THAT(Error(head + "{% set ns.x = {'a': ns.x} %}{% endfor %}"), HasSubstr("nested deeper"));
  EXPECT_THAT(Error(head + "{% for y in [ns.x] %}{% set ns.x = loop %}{% endfor %}{% endfor %}"),
              HasSubstr("deep"));
  EXPECT_THAT(Error(head + "{% set ns.x = [ns.x].index %}{% endfor %}"), HasSubstr("deeper"));
  EXPECT_EQ(Error(head + "{% set ns.x = namespace(a=ns.x) %}{% endfor %}"), "");
  EXPECT_EQ(Error(head + "{% set ns.x = [ns] %}{% endfor %}{{ ns.x[0].x | length }}"), "");
  EXPECT_EQ(Error("{% set ns = namespace(m=1) %}"
                  "{% macro f(a) %}{% macro g() %}{{ a }}{% endmacro %}{% set ns.m = g %}"
                  "{% endmacro %}{% for i in range(100000) %}{{ f(ns.m) }}{% endfor %}"),
            "");
}

TEST(ChatTemplateHostileTest, TextOfAValueThatHoldsItselfFails) {
  EXPECT_THAT(Error("{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns.a }}"),
              HasSubstr("has no text"));
  EXPECT_THAT(Error("{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns.a | tojson }}"),
              HasSubstr("not JSON serializable"));
}

TEST(ChatTemplateHostileTest, BadBytesPassThroughUnharmed) {
  for (int a = 0x80; a < 0x100; ++a) {
    const std::string bad = {static_cast<char>(a), 'x'};
    EXPECT_EQ(Error(absl::StrCat("{{ '", bad, "' | upper | title | reverse | list | tojson }}", bad,
                                 "{{ '", bad, "'.split() }}{{ '", bad, "'.strip() }}{{ '", bad,
                                 "'[::-1] }}{{ ['", bad, "'] }}")),
              "")
        << a;
  }
}

// Whatever it is cut from and glued to: an answer, never a crash.
TEST(ChatTemplateHostileTest, MutatedTemplatesEnd) {
  const std::string pieces[] = {
      "{% for m in messages %}",
      "{% endfor %}",
      "{% if m.role == 'user' %}",
      "{% elif flag %}",
      "{% else %}",
      "{% endif %}",
      "{{ m.content | trim }}",
      "{{ m['content'][1:-1] ~ 'x' }}",
      "{%- set x = [1, 2.5, 'a', none, {'k': (1,)}] -%}",
      "{{ x | tojson(indent=2) }}",
      "{% macro f(a, b=1) %}",
      "{{ f(x, b=x[0]) }}",
      "{% endmacro %}",
      "{% set ns = namespace(a=1) %}",
      "{% set ns.a = ns.a + 1 %}",
      "{{ x[::-1] | join(',') }}",
      "{# note #}",
      "{% raw %}",
      "{% endraw %}",
      "{{ messages | selectattr('role', 'eq', 'user') | map(attribute='content') | list }}",
      "{{ 'a b'.split(' ')[-1].upper() }}",
      "{% set y %}",
      "{% endset %}",
      "{% call f(1) %}",
      "{% endcall %}",
      "{{ x is defined and not y is none }}",
      "{% filter upper %}",
      "{% endfilter %}",
      "{% break %}",
      "\n  ",
      "{{ loop.index0 % 2 }}",
      "{% with a = 1, b = 2 %}",
      "{% endwith %}",
      "{{ x | sort | unique | first }}"};
  std::mt19937 random(11);
  int rendered = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string source;
    for (size_t i = 1 + random() % 8; i > 0; --i) source += pieces[random() % std::size(pieces)];
    for (size_t i = random() % 4; i > 0 && !source.empty(); --i) {
      const size_t at = random() % source.size();
      switch (random() % 3) {
        case 0:
          source[at] = static_cast<char>(random());
          break;
        case 1:
          source.erase(at, 1 + random() % 4);
          break;
        default:
          source.insert(at, source.substr(random() % source.size(), random() % 6));
      }
    }
    rendered += Error(source).empty() ? 1 : 0;
  }
  EXPECT_GT(rendered, 300) << "the mutations should leave some templates whole";
}

}  // namespace
}  // namespace longhaul
