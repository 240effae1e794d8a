// MetricRegistry: the metrics of a process, and the handles that count them. Wraps prometheus-cpp,
// whose headers no user of this room includes.
//
// Names start with longhaul_, units are seconds and bytes, counters end in _total (checked when a
// metric is added). Names, help texts, labels and buckets stand in one place each: WorkerMetrics
// and PublishHttp beside this file, RouterMetrics in router/metrics.
//
// Handles may be used from any thread. They are pointers into the registry, which must outlive
// them. Metrics are added before the threads start that use them.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace longhaul {

class Counter {
 public:
  using Raw = prometheus::Counter;
  explicit Counter(Raw* raw) : raw_(raw) {}
  void Add(double amount = 1);
  // Adds what is missing to `total`, which is counted elsewhere; a smaller total changes nothing.
  // By one thread only, and not mixed with Add.
  void RaiseTo(double total);
  double value() const;

 private:
  Raw* raw_;
};

class Gauge {
 public:
  using Raw = prometheus::Gauge;
  explicit Gauge(Raw* raw) : raw_(raw) {}
  void Set(double value);
  void Add(double amount);
  double value() const;

 private:
  Raw* raw_;
};

class Histogram {
 public:
  using Raw = prometheus::Histogram;
  explicit Histogram(Raw* raw) : raw_(raw) {}
  void Observe(double value);

 private:
  Raw* raw_;
};

using MetricLabels = std::vector<std::pair<std::string, std::string>>;

// Metrics of one name, told apart by labels. A label value may come from the world (a model's name,
// a peer): beyond kSeriesMax combinations all values become "other", so that nobody can grow the
// process's memory or the text by making up names.
template <typename Metric>
class MetricFamily {
 public:
  static constexpr int64_t kSeriesMax = 1000;
  struct State;
  explicit MetricFamily(State* state) : state_(state) {}

  // `values` in the order of the label names. Looks the metric up: keep the handle where it is hot.
  Metric With(std::initializer_list<absl::string_view> values) const;

 private:
  State* state_;
};

enum class PulledKind { kCounter, kGauge };

class MetricRegistry {
 public:
  MetricRegistry();
  ~MetricRegistry();
  MetricRegistry(const MetricRegistry&) = delete;
  MetricRegistry& operator=(const MetricRegistry&) = delete;

  // `fixed` labels have one value for all metrics of the family; several families may share a name
  // when they differ in those values (two workers in one process).
  MetricFamily<Counter> AddCounters(const std::string& name, const std::string& help,
                                    std::vector<std::string> labels, MetricLabels fixed = {});
  MetricFamily<Gauge> AddGauges(const std::string& name, const std::string& help,
                                std::vector<std::string> labels, MetricLabels fixed = {});
  MetricFamily<Histogram> AddHistograms(const std::string& name, const std::string& help,
                                        std::vector<double> bounds, std::vector<std::string> labels,
                                        MetricLabels fixed = {});

  Counter AddCounter(const std::string& name, const std::string& help, MetricLabels fixed = {});
  Gauge AddGauge(const std::string& name, const std::string& help, MetricLabels fixed = {});
  Histogram AddHistogram(const std::string& name, const std::string& help,
                         std::vector<double> bounds, MetricLabels fixed = {});

  // A metric whose value is asked for by each Text(), on its thread.
  void AddPulled(PulledKind kind, const std::string& name, const std::string& help,
                 std::function<double()> value);

  // All metrics in Prometheus's text format. Any thread, also several at once.
  std::string Text() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Bucket bounds in seconds. The time to first token has vLLM's bounds, whose first sixteen are
// OpenTelemetry's; so one histogram serves dashboards made for either. Likewise between tokens.
std::vector<double> TtftBoundsS();
std::vector<double> InterTokenBoundsS();
std::vector<double> RequestBoundsS();
// From 100 us to 100 s, three a decade: steps, transfers, waits.
std::vector<double> WorkBoundsS();

}  // namespace longhaul
