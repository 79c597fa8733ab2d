// Everything is a file of its own (no inline script, style or data: URL), so that the page runs
// under `Content-Security-Policy: default-src 'self'`.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    target: "es2022",
    assetsDir: "assets",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
