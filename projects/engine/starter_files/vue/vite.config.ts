import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vite";

export default defineConfig({
  // Relative addresses: the built app works below any path.
  base: "./",
  plugins: [vue()],
  // The tests start a server, and where a build is sealed off, nothing may know the name localhost.
  server: { host: "127.0.0.1" },
});
