#include "common/metrics/metric_registry.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <atomic>
#include <deque>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/base/check.h"

namespace longhaul {

void Counter::Add(double amount) { raw_->Increment(amount); }
void Counter::RaiseTo(double total) {
  const double missing = total - raw_->Value();
  if (missing > 0) raw_->Increment(missing);
}
double Counter::value() const { return raw_->Value(); }

void Gauge::Set(double value) { raw_->Set(value); }
void Gauge::Add(double amount) { raw_->Increment(amount); }
double Gauge::value() const { return raw_->Value(); }

void Histogram::Observe(double value) { raw_->Observe(value); }

template <typename Metric>
struct MetricFamily<Metric>::State {
  prometheus::Family<typename Metric::Raw>* family = nullptr;
  std::vector<std::string> labels;
  MetricLabels fixed;
  std::vector<double> bounds;  // histograms only
  // Threads that add the last ones at once may exceed the maximum by their number.
  std::atomic<int64_t> series{0};

  typename Metric::Raw* Make(const prometheus::Labels& values) {
    if constexpr (std::is_same_v<Metric, Histogram>) {
      return &family->Add(values, bounds);
    } else {
      return &family->Add(values);
    }
  }
};

template <typename Metric>
Metric MetricFamily<Metric>::With(std::initializer_list<absl::string_view> values) const {
  LH_CHECK(values.size() == state_->labels.size(),
           absl::StrCat(values.size(), " values for ", state_->labels.size(), " labels"));
  prometheus::Labels named(state_->fixed.begin(), state_->fixed.end());
  auto label = state_->labels.begin();
  for (const absl::string_view value : values) named[*label++] = std::string(value);
  if (!state_->family->Has(named)) {
    if (state_->series >= kSeriesMax) {
      for (const std::string& name : state_->labels) named[name] = "other";
    }
    state_->series += 1;
  }
  return Metric(state_->Make(named));
}

template class MetricFamily<Counter>;
template class MetricFamily<Gauge>;
template class MetricFamily<Histogram>;

namespace {

class Pulled final : public prometheus::Collectable {
 public:
  Pulled(PulledKind kind, std::string name, std::string help, std::function<double()> value)
      : kind_(kind), name_(std::move(name)), help_(std::move(help)), value_(std::move(value)) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    prometheus::ClientMetric metric;
    const bool counts = kind_ == PulledKind::kCounter;
    (counts ? metric.counter.value : metric.gauge.value) = value_();
    return {{name_,
             help_,
             counts ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge,
             {metric}}};
  }

 private:
  const PulledKind kind_;
  const std::string name_;
  const std::string help_;
  const std::function<double()> value_;
};

void CheckName(const std::string& name, bool counts) {
  LH_CHECK(absl::StartsWith(name, "longhaul_"), absl::StrCat("metric ", name));
  LH_CHECK(absl::EndsWith(name, "_total") == counts, absl::StrCat("metric ", name));
}

// The builder differs by type alone; a family of the same name and help is found again.
template <typename Metric, typename Builder>
MetricFamily<Metric> AddFamily(std::deque<typename MetricFamily<Metric>::State>& states,
                               Builder builder, prometheus::Registry& registry,
                               const std::string& name, const std::string& help,
                               std::vector<std::string> labels, MetricLabels fixed,
                               std::vector<double> bounds = {}) {
  CheckName(name, std::is_same_v<Metric, Counter>);
  auto& state = states.emplace_back();
  state.family = &builder.Name(name).Help(help).Register(registry);
  state.labels = std::move(labels);
  state.fixed = std::move(fixed);
  state.bounds = std::move(bounds);
  return MetricFamily<Metric>(&state);
}

}  // namespace

struct MetricRegistry::Impl {
  prometheus::Registry registry{prometheus::Registry::InsertBehavior::Merge};
  std::deque<MetricFamily<Counter>::State> counters;
  std::deque<MetricFamily<Gauge>::State> gauges;
  std::deque<MetricFamily<Histogram>::State> histograms;
  std::deque<Pulled> pulled;
};

MetricRegistry::MetricRegistry() : impl_(std::make_unique<Impl>()) {}
MetricRegistry::~MetricRegistry() = default;

MetricFamily<Counter> MetricRegistry::AddCounters(const std::string& name, const std::string& help,
                                                  std::vector<std::string> labels,
                                                  MetricLabels fixed) {
  return AddFamily<Counter>(impl_->counters, prometheus::BuildCounter(), impl_->registry, name,
                            help, std::move(labels), std::move(fixed));
}

MetricFamily<Gauge> MetricRegistry::AddGauges(const std::string& name, const std::string& help,
                                              std::vector<std::string> labels, MetricLabels fixed) {
  return AddFamily<Gauge>(impl_->gauges, prometheus::BuildGauge(), impl_->registry, name, help,
                          std::move(labels), std::move(fixed));
}

MetricFamily<Histogram> MetricRegistry::AddHistograms(const std::string& name,
                                                      const std::string& help,
                                                      std::vector<double> bounds,
                                                      std::vector<std::string> labels,
                                                      MetricLabels fixed) {
  return AddFamily<Histogram>(impl_->histograms, prometheus::BuildHistogram(), impl_->registry,
                              name, help, std::move(labels), std::move(fixed), std::move(bounds));
}

Counter MetricRegistry::AddCounter(const std::string& name, const std::string& help,
                                   MetricLabels fixed) {
  return AddCounters(name, help, {}, std::move(fixed)).With({});
}

Gauge MetricRegistry::AddGauge(const std::string& name, const std::string& help,
                               MetricLabels fixed) {
  return AddGauges(name, help, {}, std::move(fixed)).With({});
}

Histogram MetricRegistry::AddHistogram(const std::string& name, const std::string& help,
                                       std::vector<double> bounds, MetricLabels fixed) {
  return AddHistograms(name, help, std::move(bounds), {}, std::move(fixed)).With({});
}

void MetricRegistry::AddPulled(PulledKind kind, const std::string& name, const std::string& help,
                               std::function<double()> value) {
  CheckName(name, kind == PulledKind::kCounter);
  impl_->pulled.emplace_back(kind, name, help, std::move(value));
}

std::string MetricRegistry::Text() const {
  std::vector<prometheus::MetricFamily> families = impl_->registry.Collect();
  for (const Pulled& pulled : impl_->pulled) {
    for (prometheus::MetricFamily& family : pulled.Collect()) {
      families.push_back(std::move(family));
    }
  }
  return prometheus::TextSerializer().Serialize(families);
}

std::vector<double> TtftBoundsS() {
  return {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
          1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560};
}
std::vector<double> InterTokenBoundsS() {
  return {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80};
}
std::vector<double> RequestBoundsS() {
  return {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
          30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
}
std::vector<double> WorkBoundsS() {
  return {.0001, .0002, .0005, .001, .002, .005, .01, .02, .05, .1,
          .2,    .5,    1,     2,    5,    10,   20,  50,  100};
}

}  // namespace longhaul
