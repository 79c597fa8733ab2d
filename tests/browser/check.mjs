// A browser walks through the control-tower page of a running Belfry, as somebody in the NOC would.
//
//   BELFRY_URL=http://127.0.0.1:8080/login/TOKEN node check.mjs OUTPUT_DIRECTORY
//
// It takes pictures on the way, checks each page with axe, and stops with a clear sentence at the first thing that is
// not as it should be. Settings: BELFRY_CHROMIUM (default /usr/bin/chromium), BELFRY_LOG_QUERY (a search that finds
// something, default `logged in`), BELFRY_WAIT_SECONDS (for customers to come, default 60). With BELFRY_FAULT_ON and
// BELFRY_FAULT_OFF (commands) it also breaks call set-up and watches the page, the example call and the resolve.

import { execSync } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { connect, createServer } from "node:net";
import { join } from "node:path";

import { chromium } from "playwright-core";

const link = process.env.BELFRY_URL;
const output = process.argv[2];
if (!link || !output) {
  console.error("usage: BELFRY_URL=http://127.0.0.1:8080/login/TOKEN node check.mjs OUTPUT_DIRECTORY");
  process.exit(2);
}
const WAIT_MS = 1000 * Number(process.env.BELFRY_WAIT_SECONDS ?? 60);
const LOG_QUERY = process.env.BELFRY_LOG_QUERY ?? "logged in";
const WALL = { width: 1920, height: 1080 };
const PAGE_BYTES_MAX = 200 * 1024;
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
  // A name as a site has one: browsers treat plain HTTP to it otherwise than to localhost.
  "--host-resolver-rules=MAP tower.test 127.0.0.1",
];

// The browser reaches the server through a wire of ours, which can be cut.
const wire = await layWire(new URL(link));
const origin = `http://127.0.0.1:${wire.port}`;
const url = origin + new URL(link).pathname;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
mkdirSync(output, { recursive: true });

const browser = await chromium.launch({
  executablePath: process.env.BELFRY_CHROMIUM ?? "/usr/bin/chromium",
  args: FLAGS,
});
const complaints = [];
let step = "start";
try {
  const context = await browser.newContext({ viewport: WALL, colorScheme: "light", reducedMotion: "reduce" });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  const bytes = listen(page);
  await logIn(page, bytes);
  await watchTheGridMove(page);
  await pictureTheOverview(page);
  await walkWithTheKeyboard(page);
  await openACall(page);
  await exploreTheMetrics(page);
  await searchTheLogs(page);
  await readARunbook(page);
  if (process.env.BELFRY_FAULT_ON && process.env.BELFRY_FAULT_OFF) await watchAFault(page);
  await loseAndFindTheServer(page);
  await logOut(page, context);
} catch (error) {
  await fail(error);
}
await browser.close();
wire.close();
console.log(`browser test: all is as it should be; pictures are in ${output}`);

async function logIn(page, bytes) {
  say("log in with the link");
  const strangers = await browser.newContext();
  const stranger = await strangers.newPage();
  await stranger.goto(`${origin}/calls`);
  await stranger.waitForURL(/\/login\?next=%2Fcalls$/);
  expect((await stranger.request.get(`${origin}/api/status`)).status() === 401, "a stranger gets no data");
  await stranger.screenshot({ path: join(output, "login.png") });
  await stranger.goto(`http://tower.test:${wire.port}/login`);
  await stranger.getByLabel("Name").fill("nobody");
  await stranger.getByLabel("Password").fill("a wrong one");
  await stranger.getByRole("button", { name: "Log in" }).click();
  await stranger.getByText("The name or the password is not right").waitFor();
  expect((await stranger.request.get(url)).ok(), "a mail program may look at the link first");
  await page.goto(url);
  await page.getByRole("button", { name: "Log in" }).waitFor();
  await picture(page, "login-link");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL(`${origin}/`);
  const status = (await stranger.goto(url)).status();
  expect(status === 410, `a link that was used is gone, and not ${status}`);
  await stranger.getByText("This login link was used before").waitFor();
  await strangers.close();
  await page.locator('[data-link="live"]').waitFor();
  const total = [...bytes.values()].reduce((sum, size) => sum + size, 0);
  console.log(`  the page weighs ${(total / 1024).toFixed(0)} KiB as sent`);
  expect(total < PAGE_BYTES_MAX, `the page weighs at most 200 KiB, not ${total} bytes`);
}

async function watchTheGridMove(page) {
  say("wait for figures in the grid, and for them to change");
  const figures = () => page.locator("[data-cell]").evaluateAll((cells) => cells.map((cell) => cell.innerText).join("|"));
  await page.locator("[data-cell] .number", { hasText: /\d/ }).first().waitFor();
  const first = await figures();
  await page.waitForFunction(
    (first) => [...document.querySelectorAll("[data-cell]")].map((cell) => cell.innerText).join("|") !== first,
    first,
  );
  const [header, rows] = [page.locator(".grid thead th[scope=col]"), page.locator(".grid tbody th[scope=row]")];
  console.log(`  ${await rows.count()} regions, ${(await header.count()) - 1} journeys`);
  for (const cell of await page.locator("[data-cell]").all()) {
    const [state, text] = [await cell.getAttribute("data-state"), await cell.textContent()];
    const word = { ok: "OK", warning: "Warning", critical: "Critical", stale: "Stale" }[state];
    expect(word && text.includes(word), `a cell says its state "${state}" in words, not by colour alone: ${text}`);
    expect((await cell.locator("svg.glyph *").count()) > 0, `a cell that is ${state} has a glyph`);
  }
}

async function pictureTheOverview(page) {
  say("look at the overview");
  await page.locator(".slos tbody tr").first().waitFor();
  const size = await page.evaluate(() => ({
    height: document.documentElement.scrollHeight,
    width: document.documentElement.scrollWidth,
  }));
  expect(size.height <= WALL.height && size.width <= WALL.width, `the wall does not scroll: ${JSON.stringify(size)}`);
  await picture(page, "overview");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture(page, "overview-night");
  await page.emulateMedia({ colorScheme: "light" });
}

async function walkWithTheKeyboard(page) {
  say("walk with the keyboard");
  await page.goto(`${origin}/`);
  await page.locator("[data-cell]").first().waitFor();
  const reached = [];
  for (let presses = 0; presses < 12; presses += 1) {
    await page.keyboard.press("Tab");
    reached.push(await page.evaluate(() => document.activeElement?.textContent?.trim() ?? ""));
  }
  for (const wanted of ["Skip to the content", "Overview", "Calls", "Logs", "Explore", "Runbooks"]) {
    expect(reached.includes(wanted), `"${wanted}" is reached with the Tab key; reached were ${reached.slice(0, 8)}`);
  }
}

async function openACall(page) {
  say("open a call's ladder from the list of calls");
  await page.goto(`${origin}/`);
  await page.getByRole("link", { name: "Calls", exact: true }).click();
  await page.getByLabel("Outcome").selectOption("answered");
  await page.waitForURL(/outcome=answered/);
  // The list asks again by itself until a call has ended.
  await page.locator("table.calls tbody tr a").first().waitFor();
  await picture(page, "calls");
  await page.locator("table.calls tbody tr a").first().click();
  await page.waitForURL(/\/calls\/.+/);
  await page.locator(".rows .row").first().waitFor();
  const labels = await page.locator(".row-label").allInnerTexts();
  for (const wanted of [/^INVITE/, /^200 INVITE/, /^ACK/, /^BYE/]) {
    expect(labels.some((label) => wanted.test(label)), `the ladder shows ${wanted}; it shows ${labels.join(", ")}`);
  }
  await page.locator(".rows .row").nth(1).click();
  const text = await page.locator(".message-text pre").innerText();
  expect(text.includes("SIP/2.0"), `a click shows the message, not: ${text.slice(0, 80)}`);
  expect((await page.locator(".curves canvas").count()) >= 3, "the quality curves are drawn");
  await page.getByText("The same as a table").click();
  await page.locator("details table tbody tr").first().waitFor();
  await page.getByText("The same as a table").click();
  expect((await page.locator(".waterfall tbody tr").count()) > 0, "the call has spans");
  await page.evaluate(() => scrollTo(0, 0));
  await picture(page, "call", { fullPage: true });
}

async function exploreTheMetrics(page) {
  say("explore the metrics: completion, a graph, a table, a fault, the curves of a call");
  await page.getByRole("link", { name: "Explore", exact: true }).click();
  const box = page.getByLabel("Query in PromQL");
  await box.click();
  await page.keyboard.type("sum by (region) (rate(core_call_att");
  await page.getByRole("option", { name: /core_call_attempts_total/ }).first().waitFor();
  await picture(page, "explore-completion");
  await page.keyboard.press("Tab");
  await page.keyboard.type("{");
  await page.getByRole("option", { name: "region" }).first().waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("Backspace");
  await page.keyboard.type("[1m]))");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/explore\?q=sum/);
  await untilDrawn(page);
  expect((await page.locator(".series tbody tr").count()) > 0, "the series are listed");
  await page.getByText(/What it cost/).click();
  await page.locator(".cost tbody tr", { hasText: "core_call_attempts_total[1m]" }).first().waitFor();
  await picture(page, "explore");
  await page.locator("select[name=view]").selectOption("table");
  await page.waitForURL(/view=table/);
  await page.locator(".series td.num").first().waitFor();
  await page.getByRole("button", { name: "Link to share" }).click();
  await page.waitForURL(/from=\d+&to=\d+/);
  await page.locator(".fixed input").first().waitFor();
  await box.fill("sum(rate(up[5m])");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Enter");
  await page.locator(".fault pre").waitFor();
  // The browser complains about every 400; this one is the answer that we asked for.
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes("400 (Bad Request)")));
  const fault = await page.locator(".fault pre").textContent();
  expect(fault.split("\n")[1].length === "sum(rate(up[5m])".length + 1, `the mark stands at the end: ${fault}`);
  await picture(page, "explore-fault");
  await page.goto(`${origin}/calls?outcome=answered`);
  await page.locator("table.calls tbody tr a").first().click();
  await page.locator(".in-explore a", { hasText: "jitter" }).click();
  await page.waitForURL(/\/explore\?q=rtp_jitter_seconds/);
  await untilDrawn(page);
  const legs = await page.locator(".series tbody tr").allInnerTexts();
  expect(legs.some((text) => text.includes('leg="caller"')), `the call's legs are listed: ${legs}`);
  await picture(page, "explore-call");
  await page.emulateMedia({ colorScheme: "dark" });
  await picture(page, "explore-night");
  await page.emulateMedia({ colorScheme: "light" });
}

/** A demo that has just begun has too few samples for a rate: ask again until there is a line. */
async function untilDrawn(page) {
  const canvas = page.locator(".explore-graph canvas");
  for (let tries = 0; tries < 30; tries += 1) {
    const isDrawn = await canvas.waitFor({ timeout: 2_000 }).then(
      () => true,
      () => false,
    );
    if (isDrawn) return;
    await page.getByRole("button", { name: "Run", exact: true }).click();
  }
  await canvas.waitFor();
}

async function searchTheLogs(page) {
  say(`search the logs for ${LOG_QUERY}`);
  await page.getByRole("link", { name: "Logs", exact: true }).click();
  await page.getByRole("searchbox").fill(LOG_QUERY);
  const answered = page.waitForResponse((response) => response.url().includes("/api/logs?q="));
  await page.keyboard.press("Enter");
  const { lines } = await (await answered).json();
  expect(lines.length > 0, `a search for "${LOG_QUERY}" finds something`);
  await page.locator("table.logs .line", { hasText: lines[0].message }).first().waitFor();
  await picture(page, "logs");
  await page.getByRole("searchbox").fill("severity:(");
  await page.keyboard.press("Enter");
  await page.locator(".refused").waitFor();
  // The browser complains about every 400; this one is the answer that we asked for.
  complaints.splice(0, complaints.length, ...complaints.filter((text) => !text.includes("400 (Bad Request)")));
}

async function readARunbook(page) {
  say("read a runbook and run one of its searches");
  await page.getByRole("link", { name: "Runbooks", exact: true }).click();
  await page.locator(".runbook-list a", { hasText: "CallSetupBudgetBurn" }).click();
  for (const section of ["Meaning", "Impact", "Diagnosis", "Mitigation"]) {
    await page.locator(".runbook").getByRole("heading", { name: section }).waitFor();
  }
  await picture(page, "runbook");
  await page.locator(".live-query a").first().click();
  await page.waitForURL(/\/logs\?q=/);
  await page.locator(".title .count").waitFor();
}

async function watchAFault(page) {
  say("break call set-up: red, a page with an example call, and resolved when it is mended");
  await page.goto(`${origin}/`);
  await page.locator("[data-cell]").first().waitFor();
  execSync(process.env.BELFRY_FAULT_ON, { stdio: "ignore" });
  try {
    await page.locator('[data-worst="critical"]').waitFor();
    const card = page.locator("[data-page]", { hasText: "Call set-up" });
    await card.waitFor();
    expect((await card.innerText()).includes("core"), "the page names the room at fault");
    await page.locator("p[role=status]", { hasText: "Critical" }).waitFor({ state: "attached" });
    // A few seconds more of it make a better picture.
    await page.waitForTimeout(6000);
    await picture(page, "overview-fault");
    await card.getByRole("link", { name: "Call 1" }).click();
    await page.waitForURL(/\/calls\/.+/);
    await page.locator(".row-label", { hasText: "503" }).first().waitFor();
    await picture(page, "example-call");
  } finally {
    execSync(process.env.BELFRY_FAULT_OFF, { stdio: "ignore" });
  }
  await page.goto(`${origin}/`);
  await page.locator('[data-open-pages="0"]').waitFor();
  await page.locator(".resolved a", { hasText: "Call set-up" }).first().click();
  await page.getByText("Resolved").first().waitFor();
  await picture(page, "page");
}

async function loseAndFindTheServer(page) {
  say("lose the server: STALE in words, and LIVE again when it is back");
  await page.goto(`${origin}/`);
  await page.locator('[data-link="live"]').waitFor();
  const quiet = complaints.length;
  wire.cut();
  await page.locator('[data-link="stale"]').waitFor({ timeout: 20_000 });
  await page.locator(".stale-banner").waitFor();
  await page.screenshot({ path: join(output, "stale.png") });
  wire.mend();
  await page.locator('[data-link="live"]').waitFor({ timeout: 20_000 });
  // The browser itself complains about the connection that we cut.
  complaints.length = quiet;
}

async function logOut(page, context) {
  say("log out");
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL(`${origin}/login`);
  expect((await context.request.get(`${origin}/api/status`)).status() === 401, "after the logout there is no data");
}

/** A TCP proxy on loopback. */
async function layWire(server) {
  const open = new Set();
  let isCut = false;
  const proxy = createServer((near) => {
    if (isCut) return near.destroy();
    const far = connect({ host: server.hostname, port: Number(server.port || 80) });
    for (const [socket, other] of [[near, far], [far, near]]) {
      open.add(socket);
      socket.setNoDelay(true);
      socket.pipe(other);
      socket.on("error", () => other.destroy());
      socket.on("close", () => (open.delete(socket), other.destroy()));
    }
  });
  await new Promise((ready) => proxy.listen(0, "127.0.0.1", ready));
  const cut = () => {
    isCut = true;
    for (const socket of open) socket.destroy();
  };
  const close = () => (cut(), proxy.close());
  return { port: proxy.address().port, cut, mend: () => (isCut = false), close };
}

/** Complaints of the page, and the bytes of each of its files as they were sent. */
function listen(page) {
  const bytes = new Map();
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(`${message.text()} (${message.location().url})`);
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("requestfinished", async (request) => {
    const { pathname } = new URL(request.url());
    if (pathname.startsWith("/api/")) return;
    const sizes = await request.sizes().catch(() => undefined);
    if (sizes) bytes.set(pathname, sizes.responseBodySize);
  });
  return bytes;
}

/** A picture, after axe has looked. */
async function picture(page, name, options = {}) {
  await page.screenshot({ path: join(output, `${name}.png`), ...options });
  const { violations } = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ["violations"] })`);
  const found = violations.flatMap(({ id, impact, nodes }) => nodes.map((node) => `${id} (${impact}): ${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`));
  expect(found.length === 0, `axe finds nothing on ${name}:\n  ${found.slice(0, 8).join("\n  ")}`);
}

function expect(truth, sentence) {
  if (!truth) throw new Error(`not as it should be: ${sentence}`);
  if (complaints.length > 0) throw new Error(`the browser complains: ${complaints.join("; ")}`);
}

function say(what) {
  step = what;
  console.log(`- ${what}`);
}

async function fail(error) {
  const page = browser.contexts().flatMap((context) => context.pages())[0];
  await page?.screenshot({ path: join(output, "failed.png") }).catch(() => {});
  console.error(`browser test failed at "${step}": ${error.message}`);
  if (complaints.length > 0) console.error(`the browser said: ${complaints.join("; ")}`);
  if (page) console.error(`at ${page.url()}; see ${join(output, "failed.png")}`);
  await browser.close();
  process.exit(1);
}
