import express from './express.cjs'

export const { bearer } = express
