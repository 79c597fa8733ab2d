// A JavaScript phone that others wrote (JsSIP) registers over WSS through the edge, and takes its registration back.
//
//   node register.mjs wss://localhost:8443/ws CA.pem sip:USER@DOMAIN PASSWORD

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

import WebSocket from "ws";

const JsSIP = createRequire(import.meta.url)("jssip");
const [url, caFile, uri, password] = process.argv.slice(2);
if (!password) {
  console.error("usage: node register.mjs wss://HOST:PORT/PATH CA.pem sip:USER@DOMAIN PASSWORD");
  process.exit(2);
}

// What JsSIP asks of a transport (its documented Socket interface), over a WebSocket that trusts the edge's authority.
class Transport {
  via_transport = "WSS";
  url = url;
  sip_uri = `sip:${new URL(url).host};transport=ws`;

  connect() {
    this.socket = new WebSocket(url, "sip", { ca: readFileSync(caFile) });
    this.socket.on("open", () => this.onconnect());
    this.socket.on("close", (code, reason) => this.ondisconnect(code !== 1000, code, String(reason)));
    this.socket.on("message", (data) => this.ondata(data.toString()));
    this.socket.on("error", (error) => console.error(`connection: ${error.message}`));
  }

  disconnect() {
    this.socket?.close(1000);
  }

  send(message) {
    this.socket.send(message);
    return true;
  }

  isConnected() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  isConnecting() {
    return this.socket?.readyState === WebSocket.CONNECTING;
  }
}

const phone = new JsSIP.UA({ uri, password, sockets: [new Transport()], register_expires: 60 });
const patience = setTimeout(() => fail("nothing happened within 20 s"), 20_000);
phone.on("registered", (event) => {
  console.log(`- JsSIP registered over WSS: ${event.response.status_code}`);
  phone.unregister();
});
phone.on("unregistered", () => {
  console.log("- and took it back");
  clearTimeout(patience);
  phone.stop();
});
phone.on("registrationFailed", (event) => fail(`registration failed: ${event.cause}`));
phone.start();

function fail(reason) {
  console.error(`JsSIP over WSS: ${reason}`);
  process.exit(1);
}
