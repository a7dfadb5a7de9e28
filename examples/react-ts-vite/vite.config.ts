import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// Relative addresses: the built site works below any path, and opened from a folder too.
export default defineConfig({ base: "./", plugins: [react()] });
