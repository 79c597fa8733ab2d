// The OpenTelemetry SDK of Node: logs as OTLP/JSON, metrics as protobuf, spans over gRPC.
const { SpanStatusCode } = require("@opentelemetry/api");
const { OTLPLogExporter } = require("@opentelemetry/exporter-logs-otlp-http");
const { OTLPMetricExporter } = require("@opentelemetry/exporter-metrics-otlp-proto");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-grpc");
const { resourceFromAttributes } = require("@opentelemetry/resources");
const { LoggerProvider, BatchLogRecordProcessor } = require("@opentelemetry/sdk-logs");
const { MeterProvider, PeriodicExportingMetricReader } = require("@opentelemetry/sdk-metrics");
const { BasicTracerProvider, BatchSpanProcessor } = require("@opentelemetry/sdk-trace-base");

const [grpc, http] = process.argv.slice(2);
const resource = resourceFromAttributes({ "service.name": "portal", "service.instance.id": "js-1" });

async function main() {
  const spans = new BasicTracerProvider({
    resource,
    spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter({ url: grpc }))],
  });
  const span = spans.getTracer("portal").startSpan("render");
  span.addEvent("cache missed");
  span.setStatus({ code: SpanStatusCode.OK });
  span.end();
  const exporter = new OTLPLogExporter({ url: `${http}/v1/logs` });
  const processor = new BatchLogRecordProcessor({ exporter });
  const logs = new LoggerProvider({ resource, processors: [processor] });
  logs.getLogger("portal").emit({ severityText: "ERROR", body: "template missing", attributes: { "page.size": 7 } });
  const reader = new PeriodicExportingMetricReader({
    exporter: new OTLPMetricExporter({ url: `${http}/v1/metrics` }),
    exportIntervalMillis: 1e8,
  });
  const meters = new MeterProvider({ resource, readers: [reader] });
  meters.getMeter("portal").createHistogram("render.time", { unit: "ms" }).record(30, { page: "home" });
  for (const provider of [spans, logs, meters]) {
    await provider.forceFlush();
    await provider.shutdown();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
