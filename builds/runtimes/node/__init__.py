"""The Node runtime: npm, pnpm and Yarn, and the tools that projects build with."""
