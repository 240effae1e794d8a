// How values become text: Python's str, repr, json.dumps and percent-style formatting.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/utf8.h"
#include "router/text/jinja_runtime.h"
#include "router/text/jinja_unicode.h"

namespace longhaul::jinja {

std::string FloatRepr(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char buffer[32];
  const char* end =
      std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::scientific).ptr;
  absl::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  absl::string_view exponent_text = text.substr(e + 1);
  if (exponent_text.front() == '+') exponent_text.remove_prefix(1);
  (void)absl::SimpleAtoi(exponent_text, &exponent);
  // Python writes the shortest digits plainly from 1e-4 up to 1e16.
  if (exponent >= -4 && exponent < 16) {
    end = std::to_chars(buffer, buffer + sizeof(buffer), number, std::chars_format::fixed).ptr;
    std::string plain(buffer, static_cast<size_t>(end - buffer));
    return plain.find('.') == std::string::npos ? plain + ".0" : plain;
  }
  return absl::StrFormat("%se%c%02d", std::string(text.substr(0, e)), exponent < 0 ? '-' : '+',
                         std::abs(exponent));
}

std::string StringRepr(absl::string_view text) {
  const bool has_single = text.find('\'') != absl::string_view::npos;
  const bool has_double = text.find('"') != absl::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  std::string out(1, quote);
  while (!text.empty()) {
    const Utf8Step step = ReadUtf8(text);
    const char32_t c = step.code_point;
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (IsPrintable(c)) {
      out.append(text.data(), step.bytes);
    } else if (c < 0x100) {
      absl::StrAppendFormat(&out, "\\x%02x", static_cast<uint32_t>(c));
    } else if (c < 0x10000) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<uint32_t>(c));
    } else {
      absl::StrAppendFormat(&out, "\\U%08x", static_cast<uint32_t>(c));
    }
    text.remove_prefix(step.bytes);
  }
  out.push_back(quote);
  return out;
}

std::string Runtime::ToText(const Value& value) {
  if (value.is_string()) return value.AsString();
  if (value.is_undefined()) return "";
  return ToRepr(value);
}

std::string Runtime::ToRepr(const Value& value) {
  std::string out;
  AppendRepr(value, &out);
  Charge(static_cast<int64_t>(out.size()));
  return out;
}

void Runtime::AppendRepr(const Value& value, std::string* out) {
  // The text of a list that holds one big string many times is far longer than the values are.
  if (!Step() || static_cast<int64_t>(out->size()) > limits_.output_bytes_max) {
    Fail(absl::StrCat("a value's text is longer than ", limits_.output_bytes_max, " bytes"));
    return;
  }
  switch (value.kind()) {
    case Kind::kUndefined:
      *out += "Undefined";
      break;
    case Kind::kNone:
      *out += "None";
      break;
    case Kind::kBool:
      *out += value.AsBool() ? "True" : "False";
      break;
    case Kind::kInt:
      absl::StrAppend(out, value.AsInt());
      break;
    case Kind::kFloat:
      *out += FloatRepr(value.AsFloat());
      break;
    case Kind::kString:
      *out += StringRepr(value.AsString());
      break;
    case Kind::kList:
    case Kind::kTuple: {
      const std::vector<Value>& items = value.AsList();
      *out += value.kind() == Kind::kList ? "[" : "(";
      for (size_t i = 0; i < items.size() && ok(); ++i) {
        if (i > 0) *out += ", ";
        AppendRepr(items[i], out);
      }
      if (value.kind() == Kind::kTuple && items.size() == 1) *out += ",";
      *out += value.kind() == Kind::kList ? "]" : ")";
      break;
    }
    case Kind::kDict: {
      *out += "{";
      bool first = true;
      for (const auto& [key, item] : value.AsDict().entries()) {
        if (!ok()) break;
        if (!first) *out += ", ";
        first = false;
        AppendRepr(key, out);
        *out += ": ";
        AppendRepr(item, out);
      }
      *out += "}";
      break;
    }
    default:
      // Python would print an address here; a template that shows one is broken.
      Fail(absl::StrCat("a ", TypeName(value), " has no text; use a filter such as list"));
  }
}

namespace {

class JsonDumper {
 public:
  JsonDumper(Runtime& runtime, const JsonStyle& style) : runtime_(runtime), style_(style) {
    item_separator_ = style.item_separator;
    if (item_separator_.empty()) item_separator_ = style.indent >= 0 ? "," : ", ";
    key_separator_ = style.key_separator.empty() ? ": " : style.key_separator;
  }

  std::string Dump(const Value& value) {
    Write(value, 0);
    runtime_.Charge(static_cast<int64_t>(out_.size()));
    return std::move(out_);
  }

 private:
  void NewLine(int64_t level) {
    if (style_.indent < 0) return;
    out_.push_back('\n');
    const int64_t spaces = level * style_.indent;
    if (runtime_.Charge(spaces)) out_.append(static_cast<size_t>(spaces), ' ');
  }

  void WriteString(absl::string_view text) {
    out_.push_back('"');
    while (!text.empty()) {
      const Utf8Step step = ReadUtf8(text);
      const char32_t c = step.code_point;
      switch (c) {
        case '"':
          out_ += "\\\"";
          break;
        case '\\':
          out_ += "\\\\";
          break;
        case '\n':
          out_ += "\\n";
          break;
        case '\r':
          out_ += "\\r";
          break;
        case '\t':
          out_ += "\\t";
          break;
        case '\b':
          out_ += "\\b";
          break;
        case '\f':
          out_ += "\\f";
          break;
        default:
          if (c < 0x20 || (style_.ascii && c > 0x7E && c < 0x10000)) {
            absl::StrAppendFormat(&out_, "\\u%04x", static_cast<uint32_t>(c));
          } else if (style_.ascii && c >= 0x10000) {
            const uint32_t rest = static_cast<uint32_t>(c) - 0x10000;
            absl::StrAppendFormat(&out_, "\\u%04x\\u%04x", 0xD800 + (rest >> 10),
                                  0xDC00 + (rest & 0x3FF));
          } else {
            out_.append(text.data(), step.bytes);
          }
      }
      text.remove_prefix(step.bytes);
    }
    out_.push_back('"');
  }

  void WriteFloat(double number) {
    if (std::isnan(number)) {
      out_ += "NaN";
    } else if (std::isinf(number)) {
      out_ += number > 0 ? "Infinity" : "-Infinity";
    } else {
      out_ += FloatRepr(number);
    }
  }

  void WriteKey(const Value& key) {
    switch (key.kind()) {
      case Kind::kString:
        return WriteString(key.AsString());
      case Kind::kBool:
        return WriteString(key.AsBool() ? "true" : "false");
      case Kind::kNone:
        return WriteString("null");
      case Kind::kInt:
        return WriteString(absl::StrCat(key.AsInt()));
      case Kind::kFloat:
        return WriteString(FloatRepr(key.AsFloat()));
      default:
        runtime_.Fail(
            absl::StrCat("keys must be str, int, float, bool or None, not ", TypeName(key)));
    }
  }

  void WriteDict(const Dict& dict, int64_t level) {
    if (dict.entries().empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const std::pair<Value, Value>*> entries;
    for (const auto& entry : dict.entries()) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
        return runtime_.Less(a->first, b->first);
      });
    }
    out_.push_back('{');
    for (size_t i = 0; i < entries.size() && runtime_.ok(); ++i) {
      if (i > 0) out_ += item_separator_;
      NewLine(level + 1);
      WriteKey(entries[i]->first);
      out_ += key_separator_;
      Write(entries[i]->second, level + 1);
    }
    NewLine(level);
    out_.push_back('}');
  }

  void Write(const Value& value, int64_t level) {
    if (!runtime_.Step() ||
        static_cast<int64_t>(out_.size()) > runtime_.limits().output_bytes_max) {
      runtime_.Fail(
          absl::StrCat("tojson makes more than ", runtime_.limits().output_bytes_max, " bytes"));
      return;
    }
    switch (value.kind()) {
      case Kind::kNone:
        out_ += "null";
        break;
      case Kind::kBool:
        out_ += value.AsBool() ? "true" : "false";
        break;
      case Kind::kInt:
        absl::StrAppend(&out_, value.AsInt());
        break;
      case Kind::kFloat:
        WriteFloat(value.AsFloat());
        break;
      case Kind::kString:
        WriteString(value.AsString());
        break;
      case Kind::kList:
      case Kind::kTuple: {
        if (value.AsList().empty()) {
          out_ += "[]";
          break;
        }
        out_.push_back('[');
        bool first = true;
        for (const Value& item : value.AsList()) {
          if (!runtime_.ok()) break;
          if (!first) out_ += item_separator_;
          first = false;
          NewLine(level + 1);
          Write(item, level + 1);
        }
        NewLine(level);
        out_.push_back(']');
        break;
      }
      case Kind::kDict:
        WriteDict(value.AsDict(), level);
        break;
      default:
        runtime_.Fail(
            absl::StrCat("Object of type ", TypeName(value), " is not JSON serializable"));
    }
  }

  Runtime& runtime_;
  const JsonStyle& style_;
  std::string item_separator_;
  std::string key_separator_;
  std::string out_;
};

}  // namespace

std::string ToJson(Runtime& runtime, const Value& value, const JsonStyle& style) {
  return JsonDumper(runtime, style).Dump(value);
}

Value PercentFormat(Runtime& runtime, const std::string& format, const std::vector<Value>& values) {
  std::string out;
  size_t next = 0;
  for (size_t i = 0; i < format.size() && runtime.ok(); ++i) {
    if (format[i] != '%') {
      out.push_back(format[i]);
      continue;
    }
    // %[.digits]conversion: flags and widths have no use in a chat template.
    size_t at = i + 1;
    int precision = -1;
    if (at < format.size() && format[at] == '.') {
      const size_t digits = ++at;
      while (at < format.size() && absl::ascii_isdigit(static_cast<unsigned char>(format[at])))
        ++at;
      if (!absl::SimpleAtoi(format.substr(digits, at - digits), &precision) || precision > 100) {
        return runtime.Fail("a format's precision must be from 0 to 100");
      }
    }
    if (at >= format.size()) return runtime.Fail("incomplete format");
    const char conversion = format[at];
    i = at;
    if (conversion == '%') {
      out.push_back('%');
      continue;
    }
    if (next >= values.size()) return runtime.Fail("not enough arguments for format string");
    const Value& value = values[next++];
    if (value.is_string() && !runtime.Charge(static_cast<int64_t>(value.AsString().size()))) break;
    const bool number = value.is_number();
    if (conversion == 's' && precision < 0) {
      out += runtime.ToText(value);
    } else if (conversion == 'r' && precision < 0) {
      out += runtime.ToRepr(value);
    } else if ((conversion == 'd' || conversion == 'i') && number && precision < 0) {
      const double whole = std::trunc(value.AsFloat());
      if (!(std::abs(whole) < 9e18)) return runtime.Fail("%d of a number beyond 64 bits");
      absl::StrAppend(&out, value.is_integral() ? value.AsInt() : static_cast<int64_t>(whole));
    } else if (conversion == 'f' && number) {
      absl::StrAppendFormat(&out, "%.*f", precision < 0 ? 6 : precision, value.AsFloat());
    } else {
      return runtime.Fail(absl::StrCat("unsupported format '%", std::string(1, conversion),
                                       "' of a ", TypeName(value)));
    }
  }
  if (next < values.size()) {
    return runtime.Fail("not all arguments converted during string formatting");
  }
  return runtime.Text(std::move(out));
}

}  // namespace longhaul::jinja
